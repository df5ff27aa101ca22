/// The broker: its queues, its store, and the commits that tie both together.
internal import AMQP
public import Diagnostics
public import EventLoops
internal import Glibc
internal import HeapModule
internal import JSONText

/// The queues of one namespace.
@EventLoop
public final class Broker {
    /// By lower-case name.
    private(set) var queues: [String: MessageQueue] = [:]
    private var byID: [UInt32: MessageQueue] = [:]
    private var nextID: UInt32 = 4
    let storage: MessageLog?
    let log: EventLog
    let deadLetterNotes: DeadLetterNotes
    var effects: [CommitEffect] = []
    private var committing: [CommitEffect] = []
    private var toPump: [MessageQueue] = []
    var turnEnd: TurnEndAction?
    /// Queues with something to do at a time, earliest first; entries that a queue has overtaken are passed over.
    private var wakeUps = Heap<WakeUp>()
    private var alarm: WallTimer?
    private(set) var alarmAt = Int64.max
    var compactor: LoopTimer?
    /// What could not be written and must be, with the next commit.
    private var owed: [@EventLoop () -> Void] = []
    private var randomWords: [UInt64] = []
    var cachedByteCount = 0
    var isCompacting = false
    private var lastFailure: Int64 = 0
    /// Connections that are not read while the disk catches up.
    private var throttled: [BrokerConnection] = []
    var connections: [ObjectIdentifier: BrokerConnection] = [:]
    /// Milliseconds since 1970, read once per turn where it is used often.
    var now: Int64 { wallMilliseconds() &+ clockOffset }
    /// Milliseconds by which this broker's clock is ahead of the wall's: tests move time with it.
    var clockOffset: Int64 = 0
    /// Shared access keys by name; empty lets everyone in.
    public var keys: [String: String] = [:]

    /// Opens the store below `folder` and recovers what is in it; nil keeps everything in memory.
    ///
    /// - Throws: ``ServiceBusError`` when the store is in use, too new, or cannot be read.
    public convenience init(folder: String?, log: EventLog) throws(ServiceBusError) {
        try self.init(folder: folder, segmentByteCount: MessageLog.segmentByteCount, log: log)
    }

    /// The same with segments of another size, which tests have follow one another quickly.
    init(folder: String?, segmentByteCount: Int, log: EventLog) throws(ServiceBusError) {
        self.log = log
        deadLetterNotes = DeadLetterNotes(log: log)
        guard let folder else {
            storage = nil
            try prepare()
            return
        }
        var recovery = BrokerRecovery()
        storage = try MessageLog(folder: folder, segmentByteCount: segmentByteCount) { bytes, place in
            recovery.take(bytes, place)
        }
        try prepare()
        recovery.apply(to: self)
        compactSoon()
        if let lost = storage?.lostByteCount, lost > 0 {
            log.log(
                .warning, "the message store was cut short; it was recovered up to the last commit",
                [("folder", .text(folder)), ("lost_bytes", .integer(lost))])
        }
    }

    /// Its timers end with it, so they need no weak reference, and with none its reference count stays cheap.
    private func prepare() throws(ServiceBusError) {
        turnEnd = TurnEndAction { [unowned self] in turnEnded() }
        compactor = LoopTimer { [unowned self] in compact() }
        do throws(SystemError) {
            alarm = try WallTimer { [unowned self] in tick() }
        } catch {
            throw .store(path: storage?.folder ?? "", reason: error.message)
        }
    }

    isolated deinit {
        turnEnd?.cancel()
        for queue in queues.values { queue.release() }
    }

    /// Ends connections and closes the store; what was acknowledged is on disk already.
    public func close() {
        for connection in connections.values { connection.close() }
        connections = [:]
        alarm = nil
        compactor = nil
        storage?.close()
    }

    var isInMemory: Bool { storage == nil }

    // MARK: Commit

    /// Adds a record to the next commit.
    @inline(__always)
    func append(_ record: [UInt8]) -> LogPlace {
        turnEnd?.schedule()
        return storage?.append(record) ?? .none
    }

    /// Adds the record of a message that is gone.
    @inline(__always)
    func appendRemoval(queue: UInt32, sequence: UInt64) {
        turnEnd?.schedule()
        guard let storage else { return }
        _ = storage.append(SmallRecord.removal(queue: queue, sequence: sequence))
    }

    /// Adds an effect; one that continues one of the last two is taken into that, so that a burst of messages
    /// costs two effects, and not two a message. Effects of one commit run together, the order of these is free.
    @inline(__always)
    func then(_ effect: CommitEffect) {
        for index in stride(from: effects.count - 1, through: max(0, effects.count - 2), by: -1)
        where effects[index].take(in: effect) { return }
        effects.append(effect)
    }

    func read(_ place: LogPlace) -> [UInt8]? { storage?.read(place) }

    func count(_ place: LogPlace, isLive: Bool) { storage?.count(place, isLive: isLive) }

    /// Commits at the end of the turn, for effects without records too.
    func wake() { turnEnd?.schedule() }

    /// Has `queue` deliver at the end of the turn.
    func pump(_ queue: MessageQueue) {
        toPump.append(queue)
        turnEnd?.schedule()
    }

    private func turnEnded() {
        if let storage {
            commit(storage)
        } else {
            while !effects.isEmpty { finish(nil) }
        }
        runPumps()
        if storage == nil, !effects.isEmpty || !toPump.isEmpty { turnEnd?.schedule() }
    }

    private func runPumps() {
        guard !toPump.isEmpty else { return }
        let queues = toPump
        toPump = []
        for queue in queues { queue.pump() }
    }

    private func commit(_ storage: MessageLog) {
        guard !storage.isWriting else { return throttleIfNeeded(storage) }
        guard storage.hasPending else {
            if !effects.isEmpty { finish(nil) }
            return
        }
        if !owed.isEmpty {
            let writes = owed
            owed = []
            for write in writes { write() }
        }
        committing = effects
        effects = []
        storage.commit { [self] failure in
            let done = committing
            committing = []
            if let failure {
                // What was appended meanwhile counted on this group's place in the file.
                let later = effects
                effects = []
                storage.dropPending()
                report(failure)
                run(done + later, failure)
            } else {
                run(done, nil)
            }
            turnEnd?.schedule()
            unthrottle(storage)
            if storage.segments.count > 1 { compactSoon() }
        }
    }

    private func finish(_ failure: SystemError?) {
        let done = effects
        effects = []
        run(done, failure)
    }

    private func run(_ effects: [CommitEffect], _ failure: SystemError?) {
        if failure == nil {
            for effect in effects { effect.run(nil) }
        } else {
            // What failed is undone from the last to the first.
            for effect in effects.reversed() { effect.run(failure) }
        }
        for connection in connections.values where connection.hasSettlements { connection.flushSettlements() }
    }

    private func report(_ failure: SystemError) {
        guard now - lastFailure > 1000 else { return }
        lastFailure = now
        let error = ServiceBusError.store(path: storage?.folder ?? "", reason: failure.message)
        log(HostEvent(.log, .error, error.description, [("code", .text(error.code))]))
    }

    /// Tells the log of a message the broker gave up, once that is on disk.
    func tellDeadLetter(_ sequence: UInt64, of queue: MessageQueue, reason: String) {
        effects.append(
            .call { [self] failure in
                if failure == nil { deadLetterNotes.tell(sequence, of: queue.name, reason: reason) }
            })
    }

    func reportUnreadable(_ queue: MessageQueue, _ sequence: UInt64) {
        let error = ServiceBusError.store(
            path: storage?.folder ?? "", reason: "message \(sequence) of '\(queue.name)' cannot be read")
        log(HostEvent(.log, .error, error.description, [("code", .text(error.code))]))
    }

    // MARK: Back-pressure

    private func throttleIfNeeded(_ storage: MessageLog) {
        guard storage.pendingByteCount > ServiceBusLimits.uncommittedByteCount, throttled.isEmpty else { return }
        throttled = Array(connections.values)
        for connection in throttled { connection.pauseReading() }
    }

    private func unthrottle(_ storage: MessageLog) {
        guard !throttled.isEmpty, storage.pendingByteCount < ServiceBusLimits.uncommittedByteCount / 2 else { return }
        let waiting = throttled
        throttled = []
        for connection in waiting { connection.resumeReading() }
    }

    // MARK: Time

    /// Has a queue's ``MessageQueue/tick(_:)`` run at a time.
    func wake(_ queue: MessageQueue, at time: Int64) {
        wakeUps.insert(WakeUp(at: time, queue: queue))
        setAlarm(time)
    }

    private func setAlarm(_ time: Int64) {
        guard time < alarmAt else { return }
        alarmAt = time
        alarm?.start(at: time &- clockOffset)
    }

    /// Has every queue do what is due by now: costs what is due, whatever waits.
    func tick() {
        alarmAt = .max
        let now = now
        while let first = wakeUps.min, first.at <= now {
            wakeUps.removeMin()
            if first.queue.wakesAt == first.at { first.queue.tick(now) }
        }
        if let next = wakeUps.min?.at { setAlarm(next) }
    }

    /// Random bits for lock tokens, drawn in bulk: one system call per token would cost more than the message.
    @inline(__always)
    func random() -> UInt64 {
        if let word = randomWords.popLast() { return word }
        randomWords = [UInt64](repeating: 0, count: 32)
        getentropy(&randomWords, 256)
        return randomWords.popLast() ?? 0
    }

    // MARK: Queues

    /// A queue by its path in any case; sub-queues by theirs.
    public func queue(named name: String) -> MessageQueue? {
        let key = name.lowercased()
        if let found = queues[key] { return found }
        if key.hasSuffix("/$transfer/$deadletterqueue") {
            return queues[String(key.dropLast(27))]?.transferDeadLetters
        }
        if key.hasSuffix("/$deadletterqueue") { return queues[String(key.dropLast(17))]?.deadLetters }
        return nil
    }

    /// All queues by name.
    public var allQueues: [MessageQueue] { queues.values.sorted { $0.name < $1.name } }

    /// Makes a queue, or returns the one there is.
    @discardableResult
    public func createQueue(
        _ name: String, _ settings: QueueSettings = QueueSettings(),
        then done: (@EventLoop (SystemError?) -> Void)? = nil
    ) -> MessageQueue {
        if let existing = queues[name.lowercased()] { return existing }
        var settings = settings
        if settings.createdAt == 0 { settings.createdAt = now }
        if settings.updatedAt == 0 { settings.updatedAt = settings.createdAt }
        let queue = MessageQueue(id: nextID, name: name, settings: settings, broker: self, parent: nil, kind: .queue)
        register(queue)
        guard let done else {
            define(queue)
            return queue
        }
        define(queue) { [self] failure in
            // Whoever was told that it failed finds nothing; what a binding needs is there all the same.
            if failure != nil { remove(queue) }
            done(failure)
        }
        return queue
    }

    func register(_ queue: MessageQueue) {
        nextID = max(nextID, queue.id + 4)
        queues[queue.name.lowercased()] = queue
        byID[queue.id] = queue
        join(queue)
        queue.accessedAt = now
        queue.watchIdleness()
    }

    /// A queue or sub-queue by number.
    func queue(id: UInt32) -> MessageQueue? {
        let base = byID[id & ~3]
        switch id & 3 {
        case 0: return base
        case 1: return base?.deadLetters
        case 2: return base?.transferDeadLetters
        default: return nil
        }
    }

    /// Changes a queue's properties.
    public func update(
        _ queue: MessageQueue, _ settings: QueueSettings, then done: (@EventLoop (SystemError?) -> Void)? = nil
    ) {
        let old = queue.settings
        queue.settings = settings
        queue.settings.updatedAt = now
        queue.watchIdleness()
        define(queue) { failure in
            if failure != nil { queue.settings = old }
            done?(failure)
        }
    }

    /// Writes what a queue is, with the number its next message gets.
    func define(_ queue: MessageQueue, then done: (@EventLoop (SystemError?) -> Void)? = nil) {
        let old = queue.definitionPlace
        let next = max(
            queue.nextSequence, queue.deadLetters?.nextSequence ?? 0, queue.transferDeadLetters?.nextSequence ?? 0)
        let place = append(
            SmallRecord.named(
                RecordKind.definition, queue: queue.id, number: next, name: queue.name, queue.settings.json))
        queue.definitionPlace = place
        count(old, isLive: false)
        count(place, isLive: true)
        effects.append(
            .call { [self] failure in
                if failure != nil, !queue.isDeleted {
                    count(place, isLive: false)
                    count(old, isLive: true)
                    queue.definitionPlace = old
                    // Without a definition its messages would not be found again.
                    if old == .none, !isInMemory { owed.append { [self] in if !queue.isDeleted { define(queue) } } }
                }
                done?(failure)
            })
    }

    /// Removes a queue with its messages; its links are told.
    public func delete(_ queue: MessageQueue, then done: (@EventLoop (SystemError?) -> Void)? = nil) {
        guard queue.kind == .queue, queues[queue.name.lowercased()] === queue else { return }
        for subscription in queue.subscriptions { delete(subscription) }
        remove(queue)
        writeDeletion(queue.id, queue.name)
        if let done { effects.append(.call(done)) }
    }

    /// The word that a queue is gone; when it cannot be written it is tried again, or its messages would come back.
    private func writeDeletion(_ id: UInt32, _ name: String) {
        _ = append(SmallRecord.named(RecordKind.deletion, queue: id, number: 0, name: name))
        effects.append(
            .call { [self] failure in if failure != nil { owed.append { [self] in writeDeletion(id, name) } } })
    }

    /// Takes a queue out of memory; its links are told.
    private func remove(_ queue: MessageQueue) {
        queues[queue.name.lowercased()] = nil
        byID[queue.id] = nil
        queue.isDeleted = true
        queue.topic?.subscriptions.removeAll { $0 === queue }
        count(queue.definitionPlace, isLive: false)
        for part in [queue, queue.deadLetters, queue.transferDeadLetters].compactMap({ $0 }) {
            part.table.forEach { sequence, entry in
                if !entry.flags.contains(.uncommitted) {
                    count(entry.place, isLive: false)
                    cachedByteCount -= entry.record.count
                }
                return true
            }
            part.table = MessageTable()
        }
        for session in queue.sessions.values { count(session.statePlace, isLive: false) }
        queue.history.forget(before: .max) { count($0, isLive: false) }
        for connection in connections.values { connection.queueWasDeleted(queue) }
        queue.release()
    }
}

/// A time at which a queue has something to do.
struct WakeUp: Comparable {
    let at: Int64
    let queue: MessageQueue

    static func < (left: Self, right: Self) -> Bool { left.at < right.at }
    static func == (left: Self, right: Self) -> Bool { left.at == right.at }
}

/// Milliseconds since 1970, UTC.
public func wallMilliseconds() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
}
