/// What happens to messages by time alone: locks end, schedules come due, messages expire, ids are forgotten.
internal import AMQP
internal import DequeModule
internal import EventLoops

extension MessageQueue {
    /// Does what is due; returns whether anything may become due later.
    func tick(_ now: Int64) -> Bool {
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
        while let sequence = scheduled.pop(until: now) { activate(sequence) }
        while let sequence = expiring.pop(until: now) {
            guard let entry = table[sequence], entry.isReady, entry.expiresAt <= now, kind == .queue else { continue }
            expire(sequence)
        }
        history.forget(before: now - settings.duplicateDetectionWindow) { broker.count($0, isLive: false) }
        var isBusy = expireSessions(now)
        if deadLetters?.tick(now) ?? false { isBusy = true }
        if transferDeadLetters?.tick(now) ?? false { isBusy = true }
        return isBusy || !lockOrder.isEmpty || scheduled.next != nil || expiring.next != nil || !history.isEmpty
    }

    /// A scheduled message becomes an active one, with a new number.
    private func activate(_ sequence: UInt64) {
        guard let entry = table[sequence], entry.state == .scheduled,
            entry.flags.isDisjoint(with: [.uncommitted, .leaving]), var record = record(sequence)
        else { return }
        record.state = .active
        record.enqueuedAt = broker.now
        record.expiresAt = expiry(of: record, from: broker.now)
        insert(record)
        leave(sequence)
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
    private var places: [String: LogPlace] = [:]
    private var order: Deque<(at: Int64, id: String)> = []

    var isEmpty: Bool { order.isEmpty }

    func contains(_ id: String) -> Bool { places[id] != nil }
    func place(of id: String) -> LogPlace? { places[id] }

    mutating func remember(_ id: String, at time: Int64, _ place: LogPlace) {
        if places.updateValue(place, forKey: id) == nil { order.append((time, id)) }
    }

    mutating func relocate(_ id: String, _ place: LogPlace) {
        if places[id] != nil { places[id] = place }
    }

    mutating func forget(before time: Int64, _ dropped: (LogPlace) -> Void) {
        while let first = order.first, first.at < time {
            order.removeFirst()
            if let place = places.removeValue(forKey: first.id) { dropped(place) }
        }
    }
}
