/// One client's connection: its stream, its protocol state, its links to queues.
internal import AMQP
internal import Diagnostics
internal import EventLoops

/// Joins a stream to the AMQP engine and the engine's links to the broker.
@EventLoop
final class BrokerConnection {
    unowned let broker: Broker
    let engine: AMQPConnection
    private let stream: ByteStream
    private var flush: TurnEndAction?
    private var heartbeat: LoopTimer?
    private var consumers: [ObjectIdentifier: ConsumerLink] = [:]
    private var producers: [ObjectIdentifier: ProducerLink] = [:]
    private var requests: [ObjectIdentifier: RequestLink] = [:]
    /// Links that carry answers, for `$cbs` and `$management`.
    private(set) var replies: [AMQPLink] = []
    let access: AccessRights
    private var isReadingPaused = false
    private var isOver = false
    private var receivedAt: Int64 = 0
    private var hasSent = false
    private var settling: [SettlementRange] = []
    private var expiry: LoopTimer?

    /// An idle client that told no idle time-out is kept; one silent for twice ours is gone.
    private static let heartbeatInterval = Duration.seconds(30)
    /// How long a peer may take to read our last words.
    private static let closingTime = Duration.seconds(5)

    init(broker: Broker, stream: ByteStream) {
        self.broker = broker
        self.stream = stream
        access = AccessRights(broker: broker)
        var limits = AMQPLimits()
        limits.messageByteCount = ServiceBusLimits.messageByteCount
        let open = AMQPOpen(containerID: "andiron")
        engine = AMQPConnection(
            role: .server(mechanisms: ["MSSBCBS", "PLAIN", "ANONYMOUS"]), open: open, limits: limits)
        flush = TurnEndAction { [weak self] in self?.write() }
        heartbeat = LoopTimer { [weak self] in self?.beat() }
        expiry = LoopTimer { [weak self] in self?.dropUnauthorized() }
        engine.handler = self
        receivedAt = broker.now
    }

    func start() {
        stream.startReading(to: self)
        heartbeat?.start(after: Self.heartbeatInterval, every: Self.heartbeatInterval)
    }

    // MARK: Output

    private func write() {
        guard !isOver else { return }
        // Above the limit output stays with the engine, where deliveries stop.
        guard stream.bufferedByteCount < AMQPLimits.outputByteCount else { return pauseIfFlooded() }
        guard engine.hasOutput else { return }
        hasSent = true
        stream.write(engine.takeOutput())
    }

    /// Answers pile up for a client that sends and does not read: then it is not read either.
    private func pauseIfFlooded() {
        guard !isReadingPaused else { return }
        isReadingPaused = true
        stream.stopReading()
    }

    func pauseReading() { stream.stopReading() }

    func resumeReading() {
        guard !isReadingPaused, !isOver else { return }
        stream.startReading(to: self)
    }

    private func beat() {
        let silence = broker.now - receivedAt
        if silence > 2 * Int64(AMQPLimits().idleTimeoutMilliseconds ?? 240_000) {
            engine.close(AMQPError("amqp:connection:forced", "the connection was inactive"))
        }
        if engine.remoteOpen?.idleTimeout ?? 0 > 0, !hasSent { engine.sendEmptyFrame() }
        hasSent = false
    }

    // MARK: Settlements

    var hasSettlements: Bool { !settling.isEmpty }

    /// Remembers a link with answers to send when the commit's effects are done.
    func willFlush(_ batch: SettlementRange) { settling.append(batch) }

    func flushSettlements() {
        let batches = settling
        settling = []
        for batch in batches { batch.flush() }
    }

    // MARK: Links

    func forget(_ link: AMQPLink) {
        let key = ObjectIdentifier(link)
        consumers[key] = nil
        producers[key] = nil
        requests[key] = nil
        replies.removeAll { $0 === link }
    }

    /// The link that answers go to: named by reply-to, else the one from the same address.
    func replyLink(_ replyTo: String?, from address: String) -> AMQPLink? {
        if let replyTo, let named = replies.last(where: { $0.remote.target?.address == replyTo }) { return named }
        let key = EntityPath(address)
        return replies.last { EntityPath($0.remote.source?.address ?? "") == key } ?? replies.last
    }

    /// The receiving link a client names in requests about a session.
    func consumer(named name: String?, of queue: MessageQueue) -> ConsumerLink? {
        consumers.values.first { $0.queue === queue && $0.link.name == name }
    }

    func queueWasDeleted(_ queue: MessageQueue) {
        let error = AMQPError("amqp:not-found", "The messaging entity '\(queue.name)' was deleted.")
        for consumer in Array(consumers.values)
        where consumer.queue === queue || consumer.queue.parent === queue { consumer.drop(error) }
        for producer in Array(producers.values) where producer.queue === queue { producer.drop(error) }
    }

    /// The client has put a token: looks after it when it ends.
    func rightsChanged() {
        guard let end = access.nextExpiry else { return }
        expiry?.start(after: .milliseconds(max(1, min(end - broker.now, 86_400_000))))
    }

    private func dropUnauthorized() {
        let error = AMQPError("amqp:unauthorized-access", "ExpiredToken: The token is expired.")
        if access.expire() {
            for consumer in Array(consumers.values) where !access.allows(consumer.queue.name) { consumer.drop(error) }
            for producer in Array(producers.values) where !access.allows(producer.queue.name) { producer.drop(error) }
        }
        rightsChanged()
    }

    private func attach(_ link: AMQPLink) {
        let terminus = link.isReceiver ? link.remote.target : link.remote.source
        guard terminus?.descriptor != 0x30 else {
            return link.refuse(AMQPError("amqp:not-implemented", "transactions are not supported"))
        }
        guard let address = terminus?.address else {
            return link.refuse(AMQPError("amqp:invalid-field", "the link names no address"))
        }
        let path = EntityPath(address)
        guard path.node == .claims || access.allows(path.entity) else {
            return link.refuse(
                AMQPError(
                    "amqp:unauthorized-access", "Unauthorized access to '\(path.entity)'; put a token to $cbs first."))
        }
        let size = UInt64(ServiceBusLimits.messageByteCount)
        switch path.node {
        case .claims, .management:
            guard path.node == .claims || path.entity.isEmpty || broker.queue(named: path.entity) != nil else {
                return link.refuse(.entityNotFound(path.entity))
            }
            link.accept(maxMessageSize: size)
            guard link.isReceiver else {
                link.handler = ReplyLink(connection: self)
                replies.append(link)
                return
            }
            let request = RequestLink(connection: self, path: path, address: address)
            requests[ObjectIdentifier(link)] = request
            link.handler = request
            link.keepCredit(100)
        case .entity:
            guard let queue = broker.queue(named: path.entity) else { return link.refuse(.entityNotFound(path.entity)) }
            if link.isReceiver { attachProducer(link, queue, size) } else { attachConsumer(link, queue, size) }
        }
    }

    private func attachProducer(_ link: AMQPLink, _ queue: MessageQueue, _ size: UInt64) {
        if let refusal = queue.refusesSends { return link.refuse(refusal) }
        let producer = ProducerLink(connection: self, link: link, queue: queue)
        producers[ObjectIdentifier(link)] = producer
        link.handler = producer
        link.accept(maxMessageSize: size)
        link.keepCredit(ProducerLink.credit)
    }

    private func attachConsumer(_ link: AMQPLink, _ queue: MessageQueue, _ size: UInt64) {
        let consumer = ConsumerLink(connection: self, link: link, queue: queue)
        let filter = link.remote.source?.filter["com.microsoft:session-filter"]
        if let refusal = consumer.refusal(wantsSession: filter != nil) { return link.refuse(refusal) }
        consumers[ObjectIdentifier(link)] = consumer
        link.handler = consumer
        guard let filter else {
            link.accept(maxMessageSize: size)
            return queue.add(consumer)
        }
        consumer.acceptSession(filter.describedValue.text, size: size)
    }
}

extension AMQPError {
    static func entityNotFound(_ name: String) -> AMQPError {
        AMQPError("amqp:not-found", "The messaging entity '\(name)' could not be found.")
    }
}

extension AMQPValue {
    /// The value inside a description, if it is one: some clients describe their filters.
    var describedValue: AMQPValue {
        if case .described(_, let value) = self { value } else { self }
    }
}

extension BrokerConnection: @EventLoop AMQPConnectionHandler {
    func authenticate(mechanism: String, response: [UInt8]) -> Bool {
        access.authenticate(mechanism: mechanism, response: response)
    }

    func connectionDidOpen(_ remote: AMQPOpen) {
        guard let timeout = remote.idleTimeout, timeout > 0 else { return }
        // Twice within the peer's time, and at most every second.
        let interval = min(Self.heartbeatInterval, .milliseconds(max(1000, Int64(timeout) / 2)))
        heartbeat?.start(after: interval, every: interval)
    }

    func connectionDidAttach(_ link: AMQPLink) { attach(link) }

    func connectionDidClose(_ error: AMQPError?) {
        finish()
    }

    func connectionHasOutput() { flush?.schedule() }

    private func end() {
        isOver = true
        heartbeat = nil
        expiry = nil
        broker.connections[ObjectIdentifier(self)] = nil
    }

    /// Writes what there is, waits a while for the peer to take it, closes.
    private func finish() {
        guard !isOver else { return }
        if engine.hasOutput { stream.write(engine.takeOutput()) }
        end()
        engine.streamEnded(nil)
        // The stream does not keep its reader, so it must not read for one that may be gone.
        stream.stopReading()
        let patience = LoopTimer { [self] in close(stream) }
        patience.start(after: Self.closingTime)
        heartbeat = patience
        stream.finishWriting { [self] in close(stream) }
    }

    private func close(_ stream: ByteStream) {
        stream.close()
        heartbeat = nil
    }

    /// Closes, as the host stops.
    func close() {
        guard !isOver else { return }
        engine.close(AMQPError("amqp:connection:forced", "the host is stopping"))
        finish()
    }
}

extension BrokerConnection: ByteStreamReader {
    func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        receivedAt = broker.now
        engine.receive(bytes)
    }

    func streamDidEnd(_ error: SystemError?) {
        guard !isOver else { return }
        engine.streamEnded(nil)
        end()
        stream.close()
    }

    func streamDidDrain() {
        guard !isOver else { return }
        write()
        if isReadingPaused, !engine.hasOutput {
            isReadingPaused = false
            stream.startReading(to: self)
        }
        for consumer in consumers.values { consumer.queue.schedulePump() }
    }
}
