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
    private var batchBegan: UInt64 = 0
    private var lastMessage: UInt64 = 0
    private var isRenewingSession = false

    struct Running {
        let message: BusMessage
        let since: Int64
        /// How long the lock held when it was new.
        let span: Int64
        var isRenewing = false
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

    /// Takes nothing more; what waits goes back.
    func close() {
        isOpen = false
        giveBackWaiting()
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
        receiver?.grant(0)
        for message in waiting { _ = receiver?.settle(message, .release) }
        waiting.removeAll()
    }

    func giveBack() {
        for entry in running { _ = receiver?.settle(entry.message, .release) }
    }

    // MARK: Flow

    private func fill() {
        guard isOpen, !isHeld, let receiver, receiver.isAttached else { return }
        let room = capacity - waiting.count - running.count
        guard room > 0, Int(receiver.credit) < (room + 1) / 2 else { return }
        receiver.grant(UInt32(room))
    }

    private func pump() {
        guard isOpen, !isHeld else { return giveBackWaiting() }
        if options.isBatch { return pumpBatch() }
        while runs < limit, let message = waiting.popFirst() { begin([message]) }
    }

    private func pumpBatch() {
        guard runs == 0, !waiting.isEmpty else { return }
        let isFull = waiting.count >= min(configuration.minMessageBatchSize, options.maxBatchSize)
        let waited = monotonicNanoseconds() &- batchBegan
        guard isFull || waited >= configuration.maxBatchWaitTime.wholeNanoseconds else { return }
        let batch = Array(waiting.prefix(options.maxBatchSize))
        waiting.removeFirst(batch.count)
        begin(batch)
    }

    private func begin(_ messages: [BusMessage]) {
        let now = wallMilliseconds()
        runs += 1
        for message in messages {
            running.append(Running(message: message, since: now, span: max(0, (message.lockedUntil ?? now) - now)))
        }
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
        if options.isBatch { pumpBatch() }
        renewLocks(now)
        guard options.isSessionsEnabled, let receiver, receiver.sessionID != nil else { return }
        if runs == 0, waiting.isEmpty, isOpen {
            let idle = monotonicNanoseconds() &- lastMessage
            if idle >= configuration.sessionIdleTimeout.wholeNanoseconds { return receiver.nextSession() }
        }
        let left = receiver.sessionLockedUntil - now
        if left < 10_000, !isRenewingSession, mayRenew(since: running.map(\.since).min() ?? now, now) {
            isRenewingSession = true
            receiver.renewSession().whenDone { [weak self] _ in self?.isRenewingSession = false }
        }
    }

    private func mayRenew(since: Int64, _ now: Int64) -> Bool {
        guard let longest = configuration.maxAutoLockRenewalDuration else { return true }
        return Duration.milliseconds(now - since) < longest
    }

    /// Batches are not renewed, as in the extension; nor messages of a session, whose session is.
    private func renewLocks(_ now: Int64) {
        guard !options.isBatch, !options.isSessionsEnabled else { return }
        for index in running.indices {
            let entry = running[index]
            guard let until = entry.message.lockedUntil, !entry.isRenewing, !entry.message.isSettled,
                until - now < entry.span / 2, mayRenew(since: entry.since, now)
            else { continue }
            running[index].isRenewing = true
            receiver?.renew(entry.message).whenDone { [weak self] _ in
                guard let self, let index = running.firstIndex(where: { $0.message === entry.message }) else { return }
                running[index].isRenewing = false
            }
        }
    }
}

extension ServiceBusLane: BusReceiverOwner {
    func receiver(_ receiver: BusReceiver, didReceive message: BusMessage) {
        if waiting.isEmpty { batchBegan = monotonicNanoseconds() }
        waiting.append(message)
        lastMessage = monotonicNanoseconds()
        guard isOpen, !isHeld else { return giveBackWaiting() }
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
        listener.detached(error)
    }
}
