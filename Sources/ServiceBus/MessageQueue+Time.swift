/// What happens to messages by time alone: locks end, schedules come due, messages expire, ids are forgotten.
internal import AMQP
internal import DequeModule
internal import Diagnostics
internal import HeapModule
internal import EventLoops

extension MessageQueue {
    /// Messages that expire or come due in one go; the rest follows at once.
    private static let portion = 10_000
    /// What is due within this many milliseconds of the last time is done together.
    private static let granularity: Int64 = 5
    /// Message ids are forgotten together, this many milliseconds late at most: nobody sees when.
    private static let forgetfulness: Int64 = 10_000
    /// How long a change that could not be written waits to be tried again.
    static let retryDelay: Int64 = 1000

    /// Has ``tick(_:)`` run at a time, or earlier.
    @inline(__always)
    func wake(at time: Int64) {
        guard time < wakesAt else { return }
        wakesAt = time
        broker.wake(self, at: time)
    }

    /// Does what is due, and asks to be woken for what is due next.
    func tick(_ now: Int64) {
        wakesAt = .max
        guard !isGone else { return }
        expireLocks(now)
        var count = 0
        while count < Self.portion, let sequence = scheduled.pop(until: now) {
            activate(sequence)
            count += 1
        }
        while count < Self.portion, let sequence = expiring.pop(until: now) {
            guard let entry = table[sequence], entry.isReady, entry.expiresAt <= now, kind == .queue else { continue }
            expire(sequence)
            count += 1
        }
        history.forget(before: now - settings.duplicateDetectionWindow) { broker.count($0, isLive: false) }
        expireSessions(now)
        if pumpsAt <= now {
            pumpsAt = .max
            schedulePump()
        }
        guard !deleteIfIdle(now) else { return }
        let next = nextDue
        if next != .max { wake(at: max(next, now + Self.granularity)) }
    }

    private var nextDue: Int64 {
        var next = min(pumpsAt, sessionLocks.min?.at ?? .max)
        if let lock = lockOrder.first { next = min(next, lock.at) }
        if let time = scheduled.next { next = min(next, time) }
        if let time = expiring.next { next = min(next, time) }
        if let time = history.oldest {
            let end = time + settings.duplicateDetectionWindow
            next = min(next, (end / Self.forgetfulness + 1) * Self.forgetfulness)
        }
        for waiter in sessionWaiters { next = min(next, waiter.until) }
        if isDeletedWhenIdle { next = min(next, idleEnd) }
        return next
    }

    private func expireLocks(_ now: Int64) {
        while let first = lockOrder.first {
            guard let lock = locks[first.sequence], lock.until == first.at else {
                lockOrder.removeFirst()
                continue
            }
            guard first.at <= now else { break }
            lockOrder.removeFirst()
            locks[first.sequence] = nil
            returnMessage(first.sequence, wasDeferred: lock.wasDeferred)
        }
    }

    /// A scheduled message becomes an active one, with a new number.
    private func activate(_ sequence: UInt64) {
        guard let entry = table[sequence], entry.state == .scheduled,
            entry.flags.isDisjoint(with: [.uncommitted, .leaving]), var record = record(sequence)
        else { return }
        record.state = .active
        record.enqueuedAt = broker.now
        record.expiresAt = expiry(of: record, from: broker.now)
        if settings.isTopic {
            record.scheduledFor = 0
            broker.publish(record, self)
        } else {
            insert(&record)
        }
        leave(sequence)
    }

    // MARK: Idleness

    private var isDeletedWhenIdle: Bool { kind == .queue && settings.autoDeleteOnIdle < QueueSettings.forever }
    private var parts: [MessageQueue] { [self] + [deadLetters, transferDeadLetters].compactMap { $0 } }
    /// Receivers wait, or messages for their time: then it is in use, whatever the clock says.
    private var isInUse: Bool {
        scheduledCount > 0 || parts.contains { !$0.receivers.isEmpty } || subscriptions.contains { $0.isInUse }
    }
    private var lastUse: Int64 {
        let parts = parts.map(\.accessedAt) + subscriptions.map(\.lastUse)
        return max(parts.max() ?? 0, settings.updatedAt)
    }
    private var idleEnd: Int64 { lastUse + settings.autoDeleteOnIdle }

    /// Plans the look at a queue that may go when nobody uses it.
    func watchIdleness() {
        if isDeletedWhenIdle { wake(at: idleEnd) }
    }

    /// Removes a queue that nobody has sent to, received from, looked into or changed for its time.
    private func deleteIfIdle(_ now: Int64) -> Bool {
        guard isDeletedWhenIdle, idleEnd <= now else { return false }
        guard !isInUse else {
            accessedAt = now
            return false
        }
        broker.log.log(
            .information, "a queue was deleted, as nobody had used it for its autoDeleteOnIdle",
            [("queue", .text(name)), ("after", .text(ISODuration.text(settings.autoDeleteOnIdle)))])
        broker.delete(self)
        return true
    }

    /// When a message enqueued at `start` expires.
    func expiry(of record: MessageRecord, from start: Int64) -> Int64 {
        let own = record.timeToLive == MessageRecord.noTimeToLive ? Int64.max : Int64(record.timeToLive)
        let limit = settings.defaultTimeToLive >= QueueSettings.forever ? Int64.max : settings.defaultTimeToLive
        let span = min(own, limit)
        return span == .max ? .max : start + span
    }
}

/// Message ids seen within a time.
struct DuplicateHistory {
    private var places: [String: (place: LogPlace, at: Int64)] = [:]
    private var order: Deque<(at: Int64, id: String)> = []

    /// When the id that is forgotten first was seen.
    var oldest: Int64? { order.first?.at }

    /// Whether an id was seen at a time or after it.
    func contains(_ id: String, since time: Int64) -> Bool { (places[id]?.at ?? .min) >= time }

    func place(of id: String) -> LogPlace? { places[id]?.place }
    /// Where the ids that are remembered lie.
    var knownPlaces: [LogPlace] { places.values.map(\.place) }

    mutating func remember(_ id: String, at time: Int64, _ place: LogPlace) {
        places[id] = (place, time)
        order.append((time, id))
    }

    mutating func relocate(_ id: String, from old: LogPlace, to new: LogPlace) {
        if places[id]?.place == old { places[id]?.place = new }
    }

    /// Forgets an id whose message was not kept.
    mutating func drop(_ id: String, _ place: LogPlace) {
        if places[id]?.place == place { places[id] = nil }
    }

    mutating func forget(before time: Int64, _ dropped: (LogPlace) -> Void) {
        while let first = order.first, first.at < time {
            order.removeFirst()
            guard let known = places[first.id], known.at == first.at else { continue }
            places[first.id] = nil
            dropped(known.place)
        }
    }
}
