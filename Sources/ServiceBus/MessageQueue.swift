/// One queue (or one of its sub-queues): its messages, who waits for them, and what becomes of them.
internal import AMQP
internal import DequeModule
internal import HeapModule
public import EventLoops

/// Takes messages from a queue: a link of the broker, a request over HTTP.
@EventLoop
protocol MessageReceiver: AnyObject {
    /// False removes messages as they are delivered.
    var isPeekLock: Bool { get }
    /// Whether one more message can be taken now.
    var canTake: Bool { get }
    /// The session whose messages it takes, for queues with sessions.
    var session: MessageSession? { get }
    func take(_ record: MessageRecord, _ delivery: MessageRecord.Delivery)
    /// A message chosen for receive-and-delete is being removed; it counts against the credit until it comes.
    func reserve()
    /// The message could not be removed and does not come.
    func cancelReservation()
    /// The lock on its session is lost.
    func sessionLockWasLost()
}

/// A message with a receiver.
struct MessageLock {
    var token: AMQPUUID
    var until: Int64
    /// The message was deferred and goes back to that when abandoned.
    var wasDeferred = false
    var session: MessageSession?
}

/// A queue. Everything here happens on the loop, at once; what must be on disk first is told by effects.
@EventLoop
public final class MessageQueue {
    /// What a queue is to its parent.
    enum Kind: UInt32 {
        case queue = 0
        case deadLetters = 1
        case transferDeadLetters = 2
    }

    let id: UInt32
    public let name: String
    let kind: Kind
    /// Gets its messages from a topic.
    let isSubscription: Bool
    unowned let broker: Broker
    /// The queue a sub-queue belongs to, until ``release()``. A weak reference would slow down every use of it.
    private(set) var parent: MessageQueue?
    public internal(set) var settings: QueueSettings { didSet { parsedRules = nil } }
    /// The topic of a subscription, and the subscriptions of a topic.
    weak var topic: MessageQueue?
    var subscriptions: [MessageQueue] = []
    private var parsedRules: [CompiledRule]?
    /// The rules of a subscription, parsed once.
    var compiledRules: [CompiledRule] {
        if let parsedRules { return parsedRules }
        let rules = settings.rules.compactMap { try? $0.compiled() }
        parsedRules = rules
        return rules
    }
    var definitionPlace = LogPlace.none
    private(set) var deadLetters: MessageQueue?
    private(set) var transferDeadLetters: MessageQueue?
    var isDeleted = false

    var table = MessageTable()
    var ready = ReadyList()
    var nextSequence: UInt64 = 1
    var locks = NumberMap<MessageLock>()
    var lockOrder: Deque<Due> = []
    var scheduled = DueList()
    var expiring = DueList()
    var sessions: [String: MessageSession] = [:]
    var sessionOfMessage = NumberMap<MessageSession>()
    var availableSessions: Deque<MessageSession> = []
    var sessionWaiters: [SessionWaiter] = []
    /// When held sessions may have run out; each held one is in here once.
    var sessionLocks = Heap<SessionDue>()
    var history = DuplicateHistory()
    var receivers: [any MessageReceiver] = []
    private var nextReceiver = 0
    private var isPumping = false
    /// When ``tick(_:)`` runs next; `.max` when nothing is due ever.
    var wakesAt = Int64.max
    /// When a delivery that could not be written is tried again.
    var pumpsAt = Int64.max
    let tokenSecret = UInt64.random(in: .min ... .max)

    /// Messages by state, and their bytes.
    public internal(set) var activeCount = 0
    public internal(set) var deferredCount = 0
    public internal(set) var scheduledCount = 0
    public internal(set) var byteCount = 0
    var accessedAt: Int64 = 0

    init(id: UInt32, name: String, settings: QueueSettings, broker: Broker, parent: MessageQueue?, kind: Kind) {
        self.id = id
        self.name = name
        self.settings = settings
        self.broker = broker
        self.parent = parent
        self.kind = kind
        isSubscription = name.lowercased().contains("/subscriptions/")
        guard kind == .queue else { return }
        deadLetters = MessageQueue(
            id: id + 1, name: name + "/$DeadLetterQueue", settings: QueueSettings(), broker: broker, parent: self,
            kind: .deadLetters)
        transferDeadLetters = MessageQueue(
            id: id + 2, name: name + "/$Transfer/$DeadLetterQueue", settings: QueueSettings(), broker: broker,
            parent: self, kind: .transferDeadLetters)
    }

    /// Lets the sub-queues go, when the queue or the broker ends.
    func release() {
        deadLetters?.parent = nil
        transferDeadLetters?.parent = nil
    }

    /// The name without its topic.
    var shortName: String { isSubscription ? String(name.split(separator: "/").last ?? "") : name }

    /// Whether it, or the queue it belongs to, was deleted.
    var isGone: Bool { isDeleted || parent?.isDeleted ?? (kind != .queue) }

    /// The queue whose settings govern locks here.
    var governing: QueueSettings { parent?.settings ?? settings }
    var requiresSession: Bool { kind == .queue && settings.requiresSession }

    // MARK: In

    /// Takes a record in; it can be seen once it is on disk. `sequence` is given for one that keeps its number.
    @discardableResult
    func insert(_ record: inout MessageRecord, sequence: UInt64? = nil) -> UInt64 {
        let number = sequence ?? nextSequence
        nextSequence = max(nextSequence, number + 1)
        record.queue = id
        record.sequence = number
        accessedAt = broker.now
        var entry = MessageEntry(record: record.bytes, expiresAt: record.expiresAt)
        entry.state = record.state
        entry.deliveryCount = record.deliveryCount
        entry.flags = .uncommitted
        entry.place = broker.append(record.bytes)
        table.insert(number, entry)
        count(record.state, 1)
        byteCount += record.bytes.count
        if requiresSession { join(number, record.sessionID) }
        broker.then(.enqueued(self, number...number))
        return number
    }

    /// The record is on disk, or could not be put there.
    func wasEnqueued(_ sequence: UInt64, _ isOnDisk: Bool) {
        guard isOnDisk else {
            forget(sequence)
            return
        }
        guard let entry = table[sequence] else { return }
        broker.count(entry.place, isLive: true)
        let keeps = broker.isInMemory || broker.cachedByteCount < ServiceBusLimits.cachedByteCount
        if keeps { broker.cachedByteCount += entry.record.count }
        table.update(sequence) { entry in
            entry.flags.remove(.uncommitted)
            if !keeps { entry.record = [] }
        }
        arm(sequence, entry)
    }

    /// Puts a message that is on disk where it waits: ready, or for its time.
    func arm(_ sequence: UInt64, _ entry: MessageEntry) {
        if entry.expiresAt != .max {
            expiring.add(Due(at: entry.expiresAt, sequence: sequence), wanted: table.count) {
                table[$0.sequence] != nil
            }
            wake(at: entry.expiresAt)
        }
        switch entry.state {
        case .active: makeReady(sequence)
        case .scheduled:
            if let record = record(sequence) {
                scheduled.add(Due(at: record.scheduledFor, sequence: sequence), wanted: scheduledCount) {
                    table[$0.sequence]?.state == .scheduled
                }
                wake(at: record.scheduledFor)
            }
        case .deferred: break
        }
    }

    /// Offers a message to receivers, in its old place.
    func makeReady(_ sequence: UInt64) {
        keepReady(sequence)
        schedulePump()
    }

    private func keepReady(_ sequence: UInt64) {
        if !sessionOfMessage.isEmpty, let session = sessionOfMessage[sequence] {
            session.ready.push(sequence)
            offer(session)
        } else {
            ready.push(sequence)
        }
    }

    // MARK: Facts

    /// A message's bytes, from memory or disk.
    func record(_ sequence: UInt64) -> MessageRecord? {
        guard let entry = table[sequence] else { return nil }
        if !entry.record.isEmpty { return MessageRecord(bytes: entry.record) }
        guard var record = broker.read(entry.place).map({ MessageRecord(bytes: $0) }) else { return nil }
        record.state = entry.state
        return record
    }

    func count(_ state: MessageState, _ change: Int) {
        switch state {
        case .active: activeCount += change
        case .deferred: deferredCount += change
        case .scheduled: scheduledCount += change
        }
    }

    /// Takes a message out of memory.
    func forget(_ sequence: UInt64) {
        guard let entry = table.remove(sequence) else { return }
        locks[sequence] = nil
        count(entry.state, -1)
        byteCount -= entry.record.isEmpty ? Int(entry.place.length) : entry.record.count
        if !entry.flags.contains(.uncommitted) {
            if !entry.record.isEmpty { broker.cachedByteCount -= entry.record.count }
            broker.count(entry.place, isLive: false)
        }
        leaveSession(sequence)
    }

    // MARK: Out

    func add(_ receiver: any MessageReceiver) {
        receivers.append(receiver)
        accessedAt = broker.now
        schedulePump()
    }

    func remove(_ receiver: any MessageReceiver) {
        receivers.removeAll { $0 === receiver }
        accessedAt = broker.now
    }

    /// Delivers at the end of this turn.
    @inline(__always)
    func schedulePump() {
        guard !isPumping, !receivers.isEmpty else { return }
        isPumping = true
        broker.pump(self)
    }

    /// Hands ready messages to receivers that can take them, in turn.
    func pump() {
        isPumping = false
        guard !settings.status.refusesReceives else { return }
        if requiresSession {
            for receiver in receivers {
                guard let session = receiver.session else { continue }
                while receiver.canTake, deliverNext(from: &session.ready, to: receiver) {}
            }
            return
        }
        while !ready.isEmpty, let receiver = nextTaker() {
            if !deliverNext(from: &ready, to: receiver) { return }
        }
    }

    private func nextTaker() -> (any MessageReceiver)? {
        for _ in 0..<receivers.count {
            nextReceiver = nextReceiver + 1 < receivers.count ? nextReceiver + 1 : 0
            if receivers[nextReceiver].canTake { return receivers[nextReceiver] }
        }
        return nil
    }

    /// Delivers the first message that can be; false when there is none.
    private func deliverNext(from list: inout ReadyList, to receiver: any MessageReceiver) -> Bool {
        while let sequence = list.pop() {
            guard let entry = table[sequence], entry.isReady else { continue }
            if entry.expiresAt <= broker.now, kind == .queue {
                expire(sequence)
                continue
            }
            guard let record = record(sequence) else {
                broker.reportUnreadable(self, sequence)
                continue
            }
            deliver(sequence, entry, record, to: receiver)
            return true
        }
        return false
    }

    private func deliver(
        _ sequence: UInt64, _ entry: MessageEntry, _ record: MessageRecord, to receiver: any MessageReceiver
    ) {
        let isFirst = !entry.flags.contains(.delivered)
        guard receiver.isPeekLock else {
            // At most once: gone from the disk before it is handed over, so that no restart brings it back.
            receiver.reserve()
            table.update(sequence) { $0.flags.insert([.leaving, .delivered]) }
            broker.appendRemoval(queue: id, sequence: sequence)
            var delivery = MessageRecord.Delivery(deliveryCount: UInt32(entry.deliveryCount), isFirst: isFirst)
            delivery.state = entry.state
            broker.effects.append(.removedForDelivery(self, sequence, record, delivery, receiver))
            return
        }
        let lock = lock(sequence, session: receiver.session)
        table.update(sequence) { $0.flags.insert([.locked, .delivered]) }
        receiver.take(
            record,
            MessageRecord.Delivery(
                deliveryCount: UInt32(entry.deliveryCount), lockToken: lock.token, lockedUntil: lock.until,
                isFirst: isFirst, state: entry.state))
    }

    /// Locks a message for a receiver; its token tells its number to us, and nobody else.
    func lock(_ sequence: UInt64, session: MessageSession?, wasDeferred: Bool = false) -> MessageLock {
        let until = session?.lockedUntil ?? broker.now + governing.lockDuration
        let token = AMQPUUID(high: broker.random(), low: sequence ^ tokenSecret)
        let lock = MessageLock(token: token, until: until, wasDeferred: wasDeferred, session: session)
        locks[sequence] = lock
        if session == nil { note(lock, sequence) }
        return lock
    }

    func note(_ lock: MessageLock, _ sequence: UInt64) {
        if lockOrder.count > 4 * locks.count + 4096 { lockOrder.removeAll { locks[$0.sequence]?.until != $0.at } }
        lockOrder.append(Due(at: lock.until, sequence: sequence))
        wake(at: lock.until)
    }

    /// Receive-and-delete: the message is gone from the disk, or stays.
    func wasRemovedForDelivery(
        _ sequence: UInt64, _ record: MessageRecord, _ delivery: MessageRecord.Delivery,
        _ receiver: any MessageReceiver, _ isOnDisk: Bool
    ) {
        guard isOnDisk else {
            table.update(sequence) { $0.flags.remove(.leaving) }
            receiver.cancelReservation()
            keepReady(sequence)
            pumpsAt = min(pumpsAt, broker.now + Self.retryDelay)
            wake(at: pumpsAt)
            return
        }
        forget(sequence)
        receiver.take(record, delivery)
    }
}
