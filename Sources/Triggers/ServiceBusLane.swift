/// One receiver of a Service Bus trigger: what it has fetched, what runs, whose locks it renews.
internal import AMQP
internal import DequeModule
internal import EventLoops
internal import FunctionApps
internal import ServiceBus

/// A stream of messages in order: a queue's, or one session's at a time.
@EventLoop
final class ServiceBusLane {
    private unowned let listener: ServiceBusListener
    private(set) var receiver: BusReceiver?
    private var waiting: Deque<BusMessage> = []
    private(set) var running: [Running] = []
    private var runs = 0
    private var isOpen = true
    private var isHeld = false
    /// When the first of the messages that wait for a batch came; monotonic.
    private var batchBegan: UInt64?
    private var lastMessage: UInt64 = 0
    private var isRenewingSession = false

    struct Running {
        let message: BusMessage
        let since: Int64
        var isRenewing = false
        /// Its lock has ended, and that was logged.
        var isLost = false
    }

    init(listener: ServiceBusListener, client: BusClient) {
        self.listener = listener
        receiver = BusReceiver(
            client: client, entity: listener.options.entity, wantsSession: listener.options.isSessionsEnabled,
            owner: self)
    }

    private var options: ServiceBusTriggerOptions { listener.options }
    private var configuration: ServiceBusConfiguration { listener.configuration }

    /// Invocations at once.
    private var limit: Int {
        if options.isBatch { return 1 }
        return options.isSessionsEnabled
            ? configuration.maxConcurrentCallsPerSession : configuration.maxConcurrentCalls
    }

    /// Messages held at once, running ones included.
    private var capacity: Int {
        options.isBatch ? options.maxBatchSize + configuration.prefetchCount : limit + configuration.prefetchCount
    }

    func start() { receiver?.start() }

    /// Takes nothing more; what waits, and what is still under way, goes back.
    func close() async {
        isOpen = false
        returnWaiting()
        await receiver?.drain()
    }

    func stop() {
        receiver?.stop()
        receiver = nil
    }

    /// The function cannot run: what waits goes back until it can.
    func hold() {
        isHeld = true
        giveBackWaiting()
    }

    func resume() {
        isHeld = false
        fill()
    }

    private func giveBackWaiting() {
        if receiver?.credit ?? 0 > 0 { receiver?.grant(0) }
        returnWaiting()
    }

    private func returnWaiting() {
        for message in waiting { receiver?.release(message) }
        waiting.removeAll()
        batchBegan = nil
    }

    func giveBack() {
        for entry in running { receiver?.release(entry.message) }
    }

    // MARK: Flow

    private func fill() {
        guard isOpen, !isHeld, let receiver, receiver.isAttached else { return }
        let room = capacity - waiting.count - running.count
        guard room > 0, Int(receiver.credit) < (room + 1) / 2 else { return }
        receiver.grant(UInt32(room))
    }

    private func pump() {
        guard isOpen else { return returnWaiting() }
        guard !isHeld else { return giveBackWaiting() }
        if options.isBatch { return pumpBatch() }
        while runs < limit, let message = waiting.popFirst() { begin([message]) }
    }

    private func pumpBatch() {
        guard runs == 0, !waiting.isEmpty else { return }
        let isFull = waiting.count >= min(configuration.minMessageBatchSize, options.maxBatchSize)
        let now = monotonicNanoseconds()
        let waited = now &- (batchBegan ?? now)
        guard isFull || waited >= configuration.maxBatchWaitTime.wholeNanoseconds else { return }
        let batch = Array(waiting.prefix(options.maxBatchSize))
        waiting.removeFirst(batch.count)
        batchBegan = waiting.isEmpty ? nil : now
        begin(batch)
    }

    private func begin(_ messages: [BusMessage]) {
        let now = wallMilliseconds()
        runs += 1
        for message in messages { running.append(Running(message: message, since: now)) }
        listener.run(messages, lane: self)
    }

    func ended(_ messages: [BusMessage]) {
        runs -= 1
        running.removeAll { entry in messages.contains { $0 === entry.message } }
        lastMessage = monotonicNanoseconds()
        pump()
        fill()
    }

    // MARK: Time

    func tick() {
        let now = wallMilliseconds()
        returnOld(now)
        if options.isBatch { pumpBatch() }
        renewLocks(now)
        tellLost(now)
        receiver?.tick()
        guard options.isSessionsEnabled, let receiver, receiver.sessionID != nil else { return }
        if runs == 0, waiting.isEmpty, isOpen {
            let idle = monotonicNanoseconds() &- lastMessage
            if idle >= configuration.sessionIdleTimeout.wholeNanoseconds { return receiver.nextSession() }
        }
        let left = receiver.sessionLockedUntil - now
        let isDue = left < receiver.sessionLockSpan / 2
        if isDue, !isRenewingSession, mayRenew(since: running.map(\.since).min() ?? now, now) {
            isRenewingSession = true
            receiver.renewSession().whenDone { [weak self] _ in self?.isRenewingSession = false }
        }
    }

    private func mayRenew(since: Int64, _ now: Int64) -> Bool {
        guard let longest = configuration.maxAutoLockRenewalDuration else { return true }
        return Duration.milliseconds(now - since) < longest
    }

    /// A message that waits for its turn is not renewed: before its lock ends, which would count as an attempt, it
    /// goes back, and comes again with a new lock. Those of a session share the session's lock.
    private func returnOld(_ now: Int64) {
        guard !options.isSessionsEnabled,
            waiting.contains(where: { $0.lockSpan > 0 && ($0.lockedUntil ?? now) - now < $0.lockSpan / 4 })
        else { return }
        let began = batchBegan
        giveBackWaiting()
        batchBegan = began
        if isOpen, !isHeld { fill() }
    }

    /// Batches are not renewed, as in the extension; nor messages of a session, whose session is.
    private func renewLocks(_ now: Int64) {
        guard !options.isBatch, !options.isSessionsEnabled else { return }
        for index in running.indices {
            let entry = running[index]
            guard let until = entry.message.lockedUntil, !entry.isRenewing, !entry.isLost, !entry.message.isSettled,
                until - now < entry.message.lockSpan / 2, mayRenew(since: entry.since, now)
            else { continue }
            running[index].isRenewing = true
            receiver?.renew(entry.message).whenDone { [weak self] _ in
                guard let self, let index = running.firstIndex(where: { $0.message === entry.message }) else { return }
                running[index].isRenewing = false
            }
        }
    }

    /// The broker gives a message whose lock has ended to somebody else, while the function still runs.
    private func tellLost(_ now: Int64) {
        guard !options.isSessionsEnabled else { return }
        for index in running.indices {
            let entry = running[index]
            guard let until = entry.message.lockedUntil, until <= now, entry.message.lockSpan > 0, !entry.isLost,
                !entry.message.isSettled
            else { continue }
            running[index].isLost = true
            listener.lockWasLost(entry.message, after: now - entry.since, mayRenew: mayRenew(since: entry.since, now))
        }
    }
}

extension ServiceBusLane: BusReceiverOwner {
    func receiver(_ receiver: BusReceiver, didReceive message: BusMessage) {
        let now = monotonicNanoseconds()
        if batchBegan == nil { batchBegan = now }
        waiting.append(message)
        lastMessage = now
        guard isOpen else { return returnWaiting() }
        guard !isHeld else { return giveBackWaiting() }
        if !options.isBatch {
            pump()
            fill()
        } else if waiting.count >= options.maxBatchSize || configuration.minMessageBatchSize > 1 {
            pumpBatch()
        } else if waiting.count == 1 {
            // What comes in the same turn belongs to the same batch.
            let soon = TurnEndAction { [weak self] in self?.pumpBatch() }
            soon.schedule()
        }
    }

    func receiverDidAttach(_ receiver: BusReceiver, session: String?) {
        lastMessage = monotonicNanoseconds()
        listener.attached()
        fill()
    }

    func receiverDidDetach(_ receiver: BusReceiver, _ error: AMQPError) {
        waiting.removeAll()
        batchBegan = nil
        listener.detached(error)
    }
}
