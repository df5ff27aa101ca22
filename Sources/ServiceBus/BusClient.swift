/// A connection to a broker as its client: made when somebody needs it, made again when it breaks.
public import AMQP
internal import Diagnostics
public import EventLoops

/// Uses a connection for one entity.
@EventLoop
public protocol BusUser: AnyObject {
    var entity: String { get }
    /// The connection is there, and we may use the entity: attach links.
    func busDidOpen(_ session: AMQPSession)
    /// It is gone, or cannot be had, or the entity may not be used; another try follows.
    func busDidClose(_ error: AMQPError)
}

/// One connection to one broker, shared by its users.
@EventLoop
public final class BusClient {
    public let address: BrokerAddress
    /// Why there is no connection; nil while there is one, or none was needed.
    public private(set) var failure: AMQPError?
    private let makeContext: @EventLoop () throws -> TLSContext
    private var context: TLSContext?
    private var users: [any BusUser] = []
    private var engine: AMQPConnection?
    private var session: AMQPSession?
    private var stream: ByteStream?
    private var tokens: TokenKeeper?
    private var flush: TurnEndAction?
    private var heartbeat: LoopTimer?
    private var retryTimer: LoopTimer?
    private var retryDelay = BusClient.firstRetry
    private var isConnecting = false
    private var isClosed = false
    private var refused: [any BusUser] = []
    private var accessTimer: LoopTimer?
    private var receivedAt: UInt64 = 0
    private var wasSilent = false
    /// How long tokens are made to hold; after three quarters of it they are renewed.
    public var tokenLifetime = BusClient.defaultTokenLifetime
    /// A broker that sends nothing for this long is gone; it is asked to send twice as often.
    public var idleTimeout = Duration.seconds(60)

    public static let defaultTokenLifetime = Duration.seconds(3600)
    /// The pause before a token that was refused is tried again.
    static let accessRetry = Duration.seconds(5)
    static let firstRetry = Duration.milliseconds(100)
    static let longestRetry = Duration.seconds(10)
    /// Time for TCP, TLS, SASL and open together.
    static let connectTimeout = Duration.seconds(10)

    /// - Parameter tls: gives the context for a broker that is reached by TLS.
    public init(address: BrokerAddress, tls: @escaping @EventLoop () throws -> TLSContext) {
        self.address = address
        makeContext = tls
        flush = TurnEndAction { [weak self] in self?.write() }
        retryTimer = LoopTimer { [weak self] in self?.connect() }
        accessTimer = LoopTimer { [weak self] in self?.askAgain() }
        heartbeat = LoopTimer { [weak self] in self?.beat() }
    }

    /// Whether the broker at the other end gives tokens, locks and a `$management` node.
    public var isServiceBus: Bool { address.kind == .serviceBus }
    public var isOpen: Bool { session != nil }

    // MARK: Users

    public func add(_ user: any BusUser) {
        guard !users.contains(where: { $0 === user }) else { return }
        users.append(user)
        if let session { open(user, session) } else { connect() }
    }

    public func remove(_ user: any BusUser) {
        users.removeAll { $0 === user }
        refused.removeAll { $0 === user }
        if users.isEmpty { disconnect() }
    }

    /// Puts a fresh token for a user whose link was lost, and tells it that it may attach again. A session that the
    /// broker has ended is of no further use: then the connection is made again.
    func reopen(_ user: any BusUser) {
        guard let session, users.contains(where: { $0 === user }) else { return }
        guard !session.isEnded else {
            return lost(AMQPError("amqp:connection:forced", "the broker ended the session"))
        }
        open(user, session)
    }

    /// Somebody has something to send: a pause before the next attempt ends now.
    func hurry() {
        guard retryTimer?.isActive ?? false else { return }
        retryTimer?.stop()
        connect()
    }

    /// A link works: the next break is not one of a row.
    func isUsed() { retryDelay = Self.firstRetry }

    private func open(_ user: any BusUser, _ session: AMQPSession) {
        guard let tokens else { return user.busDidOpen(session) }
        tokens.need(user.entity) { [weak self, weak user] error in
            guard let self, let user, self.session === session, users.contains(where: { $0 === user }) else { return }
            guard let error else { return user.busDidOpen(session) }
            refused.removeAll { $0 === user }
            refused.append(user)
            accessTimer?.start(after: Self.accessRetry)
            user.busDidClose(error)
        }
    }

    private func askAgain() {
        let users = refused
        refused = []
        for user in users { reopen(user) }
    }

    /// Closes for good.
    public func close() {
        isClosed = true
        users = []
        disconnect()
    }

    private func disconnect() {
        retryTimer?.stop()
        accessTimer?.stop()
        heartbeat?.stop()
        guard let engine, let stream else { return }
        engine.handler = nil
        engine.close()
        stream.write(engine.takeOutput())
        engine.streamEnded(nil)
        stream.stopReading()
        stream.finish()
        self.engine = nil
        self.stream = nil
        session = nil
        tokens = nil
    }

    // MARK: Connecting

    private func connect() {
        guard !isConnecting, !isClosed, session == nil, engine == nil, !users.isEmpty else { return }
        isConnecting = true
        loopTask { [self] in
            do {
                let stream = try await dial()
                isConnecting = false
                guard !isClosed, !users.isEmpty else { return stream.close() }
                begin(stream)
            } catch {
                isConnecting = false
                let reason = (error as? any HostError)?.message ?? "\(error)"
                lost(AMQPError("amqp:connection:forced", reason))
            }
        }
    }

    private func dial() async throws -> ByteStream {
        guard address.usesTLS else {
            return try await ByteStream.connect(host: address.host, port: address.dialledPort)
        }
        let context = try context ?? makeContext()
        self.context = context
        return try await ByteStream.connect(host: address.host, port: address.dialledPort, tls: context)
    }

    private func begin(_ stream: ByteStream) {
        var open = AMQPOpen(containerID: "andiron-\(UInt32.random(in: .min ... .max))", hostname: address.host)
        open.properties = .map([AMQPPair(symbol: "product", .string("andiron"))])
        let role: AMQPConnection.Role
        if address.kind == .plain, !address.user.isEmpty {
            role = .client(
                mechanism: "PLAIN", response: [0] + Array(address.user.utf8) + [0] + Array(address.password.utf8))
        } else {
            role = .client(mechanism: "ANONYMOUS", response: Array("andiron".utf8))
        }
        var limits = AMQPLimits()
        limits.idleTimeoutMilliseconds = UInt32(clamping: (idleTimeout / 2).wholeMilliseconds)
        let engine = AMQPConnection(role: role, open: open, limits: limits)
        engine.handler = self
        self.engine = engine
        self.stream = stream
        stream.startReading(to: self)
        engine.start()
        retryTimer?.stop()
        let limit = LoopTimer { [weak self, weak engine] in
            guard let self, let engine, self.engine === engine, session == nil else { return }
            lost(AMQPError("amqp:connection:forced", "the broker did not open the connection in time"))
        }
        limit.start(after: Self.connectTimeout)
        opening = limit
    }

    private var opening: LoopTimer?

    private func lost(_ error: AMQPError) {
        opening = nil
        heartbeat?.stop()
        accessTimer?.stop()
        refused = []
        engine?.handler = nil
        engine?.streamEnded(error)
        engine = nil
        stream?.close()
        stream = nil
        session = nil
        tokens = nil
        failure = error
        guard !isClosed else { return }
        for user in users { user.busDidClose(error) }
        guard !users.isEmpty else { return }
        retryTimer?.start(after: retryDelay)
        retryDelay = min(retryDelay * 2, Self.longestRetry)
    }

    /// Sends what keeps the connection alive, and looks whether the broker does so too. Silence is found twice: after
    /// a turn that took long, or a machine that slept, what the broker sent has not been read at the first look.
    private func beat() {
        let isSilent = monotonicNanoseconds() - receivedAt >= idleTimeout.wholeNanoseconds
        defer { wasSilent = isSilent }
        guard !isSilent || !wasSilent else {
            return lost(
                AMQPError("amqp:connection:forced", "the broker has been silent for \(idleTimeout.inSeconds) s"))
        }
        engine?.sendEmptyFrame()
    }

    private func write() {
        guard let stream, let engine, engine.hasOutput else { return }
        guard stream.bufferedByteCount < AMQPLimits.outputByteCount else { return }
        stream.write(engine.takeOutput())
    }
}

extension BusClient: @EventLoop AMQPConnectionHandler {
    public func authenticate(mechanism: String, response: [UInt8]) -> Bool { false }

    public func connectionDidOpen(_ remote: AMQPOpen) {
        opening = nil
        failure = nil
        guard let engine else { return }
        receivedAt = monotonicNanoseconds()
        wasSilent = false
        var interval = idleTimeout / 4
        if let timeout = remote.idleTimeout, timeout > 0 {
            interval = min(interval, .milliseconds(max(500, Int64(timeout) / 2)))
        }
        heartbeat?.start(after: interval, every: interval)
        let session = engine.beginSession()
        self.session = session
        if isServiceBus, !address.password.isEmpty || address.signature != nil {
            tokens = TokenKeeper(address: address, session: session, lifetime: tokenLifetime)
        }
        for user in users { open(user, session) }
    }

    public func connectionDidAttach(_ link: AMQPLink) {
        link.refuse(AMQPError("amqp:not-allowed", "this is a client"))
    }

    public func connectionDidClose(_ error: AMQPError?) {
        write()
        lost(error ?? AMQPError("amqp:connection:forced", "the broker closed the connection"))
    }

    public func connectionHasOutput() { flush?.schedule() }
}

extension BusClient: ByteStreamReader {
    public func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        receivedAt = monotonicNanoseconds()
        engine?.receive(bytes)
    }

    public func streamDidEnd(_ error: SystemError?) {
        lost(AMQPError("amqp:connection:forced", error?.message ?? "the broker ended the connection"))
    }

    public func streamDidDrain() { write() }
}
