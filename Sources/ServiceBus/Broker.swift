/// The broker: its queues, its store, and the commits that tie both together.
internal import AMQP
public import Diagnostics
public import EventLoops
internal import Glibc
internal import JSONText

/// What happens when a change is on disk, or could not be put there.
enum CommitEffect {
    case enqueued(MessageQueue, UInt64)
    case left(MessageQueue, UInt64)
    case removedForDelivery(
        MessageQueue, UInt64, MessageRecord, MessageRecord.Delivery, any MessageReceiver)
    /// A sender's message is safe.
    case accepted(ProducerLink, UInt32)
    /// A receiver's word about a message is safe.
    case settled(ConsumerLink, UInt32, DeliveryState)
    /// Anything else; told what failed, if something did.
    case call(@EventLoop (SystemError?) -> Void)
}

/// The queues of one namespace.
@EventLoop
public final class Broker {
    /// By lower-case name.
    private(set) var queues: [String: MessageQueue] = [:]
    private var byID: [UInt32: MessageQueue] = [:]
    private var nextID: UInt32 = 4
    private let storage: MessageLog?
    let log: EventLog
    var effects: [CommitEffect] = []
    private var committing: [CommitEffect] = []
    private var toPump: [MessageQueue] = []
    private var turnEnd: TurnEndAction?
    private var ticker: LoopTimer?
    private var randomWords: [UInt64] = []
    var cachedByteCount = 0
    private var isCompacting = false
    private var lastFailure: Int64 = 0
    /// Connections that are not read while the disk catches up.
    private var throttled: [BrokerConnection] = []
    var connections: [ObjectIdentifier: BrokerConnection] = [:]
    /// Milliseconds since 1970, read once per turn where it is used often.
    var now: Int64 { wallMilliseconds() }
    /// Shared access keys by name; empty lets everyone in.
    public var keys: [String: String] = [:]

    private static let tickInterval = Duration.milliseconds(50)

    /// Opens the store below `folder` and recovers what is in it; nil keeps everything in memory.
    ///
    /// - Throws: ``ServiceBusError`` when the store is in use, too new, or cannot be read.
    public init(folder: String?, log: EventLog) throws(ServiceBusError) {
        self.log = log
        guard let folder else {
            storage = nil
            prepare()
            return
        }
        var recovery = BrokerRecovery()
        storage = try MessageLog(folder: folder) { bytes, place in recovery.take(bytes, place) }
        prepare()
        recovery.apply(to: self)
        if let lost = storage?.lostByteCount, lost > 0 {
            log.log(
                .warning, "the message store was cut short; it was recovered up to the last commit",
                [("folder", .text(folder)), ("lost_bytes", .integer(lost))])
        }
    }

    private func prepare() {
        turnEnd = TurnEndAction { [unowned self] in turnEnded() }
        ticker = LoopTimer { [unowned self] in tick() }
    }

    isolated deinit {
        turnEnd?.cancel()
        for queue in queues.values { queue.release() }
    }

    /// Ends connections and closes the store; what was acknowledged is on disk already.
    public func close() {
        for connection in connections.values { connection.close() }
        connections = [:]
        ticker = nil
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
        }
    }

    private func finish(_ failure: SystemError?) {
        let done = effects
        effects = []
        run(done, failure)
    }

    private func run(_ effects: [CommitEffect], _ failure: SystemError?) {
        let isOnDisk = failure == nil
        for effect in effects {
            switch effect {
            case .enqueued(let queue, let sequence): queue.wasEnqueued(sequence, isOnDisk)
            case .left(let queue, let sequence): queue.hasLeft(sequence, isOnDisk)
            case .removedForDelivery(let queue, let sequence, let record, let delivery, let receiver):
                queue.wasRemovedForDelivery(sequence, record, delivery, receiver, isOnDisk)
            case .accepted(let link, let delivery): link.finish(delivery, isOnDisk ? .accepted : .rejected(.storeFull))
            case .settled(let link, let delivery, let state):
                link.confirm(delivery, isOnDisk ? state : .rejected(.storeFull))
            case .call(let body): body(failure)
            }
        }
        for connection in connections.values where connection.hasSettlements { connection.flushSettlements() }
    }

    private func report(_ failure: SystemError) {
        guard now - lastFailure > 1000 else { return }
        lastFailure = now
        let error = ServiceBusError.store(path: storage?.folder ?? "", reason: failure.message)
        log(HostEvent(.log, .error, error.description, [("code", .text(error.code))]))
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

    /// Has ``tick()`` run while something may become due.
    func needsTick() {
        guard let ticker, !ticker.isActive else { return }
        ticker.start(after: Self.tickInterval, every: Self.tickInterval)
    }

    private func tick() {
        var isBusy = false
        let now = now
        for queue in queues.values where queue.tick(now) { isBusy = true }
        compact()
        if !isBusy, !isCompacting, storage?.segmentToCompact == nil { ticker?.stop() }
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
            return queues[String(key.dropLast(28))]?.transferDeadLetters
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
        define(queue, then: done)
        return queue
    }

    func register(_ queue: MessageQueue) {
        nextID = max(nextID, queue.id + 4)
        queues[queue.name.lowercased()] = queue
        byID[queue.id] = queue
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
        queue.settings = settings
        queue.settings.updatedAt = now
        define(queue, then: done)
    }

    /// Writes what a queue is, with the number its next message gets.
    func define(_ queue: MessageQueue, then done: (@EventLoop (SystemError?) -> Void)? = nil) {
        count(queue.definitionPlace, isLive: false)
        let next = max(
            queue.nextSequence, queue.deadLetters?.nextSequence ?? 0, queue.transferDeadLetters?.nextSequence ?? 0)
        queue.definitionPlace = append(
            SmallRecord.named(
                RecordKind.definition, queue: queue.id, number: next, name: queue.name, queue.settings.json))
        count(queue.definitionPlace, isLive: true)
        if let done { effects.append(.call(done)) }
    }

    /// Removes a queue with its messages; its links are told.
    public func delete(_ queue: MessageQueue, then done: (@EventLoop (SystemError?) -> Void)? = nil) {
        guard queue.kind == .queue, queues.removeValue(forKey: queue.name.lowercased()) != nil else { return }
        byID[queue.id] = nil
        queue.isDeleted = true
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
        _ = append(SmallRecord.named(RecordKind.deletion, queue: queue.id, number: 0, name: queue.name))
        for connection in connections.values { connection.queueWasDeleted(queue) }
        queue.release()
        if let done { effects.append(.call(done)) }
    }
}

/// Milliseconds since 1970, UTC.
public func wallMilliseconds() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
}

extension Broker {
    /// Copies what matters out of the oldest segment when that is little, a part per tick, then removes it.
    private func compact() {
        // A group under way may belong to the segment before the last; older ones are complete.
        guard let storage, !isCompacting, storage.segments.count > 2 || !storage.isWriting,
            let segment = storage.segmentToCompact
        else { return }
        isCompacting = true
        storage.scan(segment) { bytes, place in _ = relocate(bytes, place) }
        effects.append(
            .call { [self] failure in
                isCompacting = false
                guard failure == nil, storage.segments.first?.number == segment else { return }
                storage.removeFirstSegment()
            })
        turnEnd?.schedule()
    }

    /// Appends a record again when it still matters.
    private func relocate(_ bytes: UnsafeRawBufferPointer, _ place: LogPlace) -> Bool {
        guard bytes.count >= 16 else { return false }
        let id = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        guard let queue = queue(id: id) else { return false }
        switch bytes[0] {
        case RecordKind.message:
            let sequence = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            guard let entry = queue.table[sequence], entry.place == place else { return false }
            var record = MessageRecord(bytes: Array(bytes))
            record.state = entry.state
            record.deliveryCount = entry.deliveryCount
            queue.relocate(sequence, record.bytes)
        case RecordKind.definition where queue.definitionPlace == place: define(queue)
        case RecordKind.sessionState, RecordKind.duplicateID:
            guard let (_, number, name, _) = SmallRecord.read(bytes) else { return false }
            if bytes[0] == RecordKind.sessionState, let session = queue.sessions[name], session.statePlace == place {
                count(place, isLive: false)
                session.statePlace = append(Array(bytes))
                count(session.statePlace, isLive: true)
            } else if queue.history.place(of: name) == place {
                count(place, isLive: false)
                let new = append(
                    SmallRecord.named(RecordKind.duplicateID, queue: id, number: number, name: name))
                queue.history.relocate(name, new)
                count(new, isLive: true)
            } else {
                return false
            }
        default: return false
        }
        return true
    }
}
