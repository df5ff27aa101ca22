/// Accepts connections and answers their requests through one responder.
internal import Diagnostics
public import EventLoops
public import HTTPMessages

/// One request with its whole body.
public struct HTTPRequest: Sendable {
    public let head: RequestHead
    public let body: [UInt8]
    /// When its first byte arrived, on the monotonic clock in nanoseconds.
    public let receivedAt: UInt64

    public init(head: RequestHead, body: [UInt8], receivedAt: UInt64) {
        self.head = head
        self.body = body
        self.receivedAt = receivedAt
    }
}

/// Answers requests, now or later. An answer that comes after the connection has failed is dropped.
@EventLoop
public protocol HTTPResponder: AnyObject {
    func respond(to request: HTTPRequest) -> Eventual<HTTPResponse>
    /// A request that was refused before there was one: the answer for a parse error or a broken limit.
    func refusal(_ error: HTTPParseError) -> HTTPResponse
}

/// A listening address and its connections.
@EventLoop
public final class HTTPListener {
    let limits: HTTPLimits
    let responder: any HTTPResponder
    private var listener: StreamListener?
    private var connections: [ObjectIdentifier: HTTPConnection] = [:]
    private var sweep: LoopTimer?
    private var timestamp = Timestamp()
    private let emptied = Gate()
    /// True from ``drain()`` on: responses close their connections.
    public private(set) var isDraining = false
    /// Seconds since some fixed moment, updated by the sweep; what deadlines are measured in.
    private(set) var clockSeconds = 0

    /// - Throws: ``SystemError`` when the address cannot be bound.
    public init(
        address: String, port: Int, limits: HTTPLimits, responder: any HTTPResponder
    ) throws(SystemError) {
        self.limits = limits
        self.responder = responder
        listener = try StreamListener(address: address, port: port) { [unowned self] in self.accept($0) }
        sweep = LoopTimer { [unowned self] in self.sweepOnce() }
    }

    /// The bound port.
    public var port: Int { listener?.port ?? 0 }

    func httpDate() -> [UInt8] { timestamp.httpDate() }

    private func accept(_ stream: ByteStream) {
        guard connections.count < limits.connectionCount else {
            let response = responder.refusal(
                HTTPParseError(503, "the host has \(limits.connectionCount) connections open already"))
            stream.output { response.appendHead(to: &$0, date: httpDate(), keepsAlive: false, minorVersion: 1) }
            stream.write(response.body)
            stream.finish()
            parting.append(stream)
            if parting.count > 64 { parting.removeFirst() }
            return
        }
        if connections.isEmpty {
            clockSeconds = Int(monotonicNanoseconds() / 1_000_000_000)
            sweep?.start(after: .seconds(1), every: .seconds(1))
        }
        let connection = HTTPConnection(stream: stream, listener: self)
        connections[ObjectIdentifier(connection)] = connection
        connection.start()
    }

    /// Refused streams that still have their answer to write.
    private var parting: [ByteStream] = []

    func closed(_ connection: HTTPConnection) {
        connections[ObjectIdentifier(connection)] = nil
        guard connections.isEmpty else { return }
        sweep?.stop()
        parting = []
        if isDraining { emptied.open() }
    }

    /// One pass over all connections a second, and none while there are no connections.
    private func sweepOnce() {
        clockSeconds = Int(monotonicNanoseconds() / 1_000_000_000)
        for connection in Array(connections.values) { connection.checkDeadline(clockSeconds) }
    }

    /// Stops accepting, closes idle connections, and returns once the busy ones have answered.
    public func drain() async {
        isDraining = true
        listener?.close()
        listener = nil
        for connection in Array(connections.values) { connection.closeIfIdle() }
        if connections.isEmpty { return }
        await emptied.wait()
    }

    /// Closes everything at once.
    public func close() {
        listener?.close()
        listener = nil
        for connection in Array(connections.values) { connection.close() }
    }
}
