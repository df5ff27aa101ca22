/// One connection's state machine, for either side, without I/O: bytes in, bytes out, calls to a handler.

/// What a connection tells its owner. All calls happen inside ``AMQPConnection/receive(_:)``.
public protocol AMQPConnectionHandler: AnyObject {
    /// Server: whether a peer may go on. `response` is the mechanism's initial response.
    func authenticate(mechanism: String, response: [UInt8]) -> Bool
    /// The peer's `open` has come; the connection can be used.
    func connectionDidOpen(_ remote: AMQPOpen)
    /// The peer attached a link; answer with ``AMQPLink/accept(_:)`` or ``AMQPLink/refuse(_:)``, now or later.
    func connectionDidAttach(_ link: AMQPLink)
    /// Over: closed by the peer, refused, or malformed. Write what is in the output, then close the stream.
    func connectionDidClose(_ error: AMQPError?)
    /// There is output where there was none; take it at the end of the turn.
    func connectionHasOutput()
}

/// A connection, its sessions and its links.
public final class AMQPConnection {
    /// Which side we are.
    public enum Role: Sendable {
        /// Offers these SASL mechanisms.
        case server(mechanisms: [String])
        /// Wants this mechanism; nil begins without SASL.
        case client(mechanism: String?, response: [UInt8])
    }

    /// Where it stands; each state goes to the next one named, or to `closed`.
    enum Phase {
        /// Protocol header of SASL or AMQP awaited; then `sasl` or `opening`.
        case header
        /// SASL frames; then `secondHeader`.
        case sasl
        /// AMQP's own header; then `opening`.
        case secondHeader
        /// `open` awaited; then `open`.
        case opening
        /// In use; then `closing` when we close first.
        case open
        /// We sent `close` and await the peer's.
        case closing
        case closed
    }

    let role: Role
    let limits: AMQPLimits
    private(set) var phase = Phase.header
    private let localOpen: AMQPOpen
    /// The peer's open, once it came.
    public private(set) var remoteOpen: AMQPOpen?
    public weak var handler: (any AMQPConnectionHandler)?
    /// What waits to be written; the owner takes it with ``takeOutput()``.
    var output = AMQPWriter()
    private var hasToldOutput = false
    private var hasSentOpen = false
    private var early = AMQPWriter()
    private var pending: [UInt8] = []
    var sessions = NumberMap<AMQPSession>()
    private var localChannels: [UInt16: AMQPSession] = [:]
    /// Channels of sessions we ended; what comes on them before the peer's `end` was sent before it knew.
    private var ending: Set<UInt16> = []

    /// - Parameter open: what we say; its frame size, channels and idle time come from `limits`.
    public init(role: Role, open: AMQPOpen, limits: AMQPLimits = AMQPLimits()) {
        self.role = role
        self.limits = limits
        var open = open
        open.maxFrameSize = limits.frameByteCount
        open.channelMax = limits.channelMax
        open.idleTimeout = limits.idleTimeoutMilliseconds
        localOpen = open
    }

    /// Client: sends the first header. A server waits.
    public func start() {
        guard case .client(let mechanism, _) = role else { return }
        if mechanism == nil {
            write(header: 0)
            sendOpen()
            phase = .secondHeader
        } else {
            write(header: 3)
        }
    }

    // MARK: Output

    /// What is to be written now, moved out.
    public func takeOutput() -> [UInt8] {
        hasToldOutput = false
        var bytes: [UInt8] = []
        swap(&bytes, &output.bytes)
        return bytes
    }

    /// Whether there is something to write.
    public var hasOutput: Bool { !output.bytes.isEmpty }

    @inline(__always)
    func tellOutput() {
        guard !hasToldOutput, !output.bytes.isEmpty else { return }
        hasToldOutput = true
        handler?.connectionHasOutput()
    }

    func send(_ performative: Performative, channel: UInt16 = 0) {
        guard hasSentOpen else {
            // What a client begins at once waits for SASL to be over.
            return performative.write(channel: channel, to: &early)
        }
        performative.write(channel: channel, to: &output)
        tellOutput()
    }

    private func sendOpen() {
        hasSentOpen = true
        send(.open(localOpen))
        output.bytes.append(contentsOf: early.bytes)
        early = AMQPWriter()
    }

    /// Keeps an idle connection alive.
    public func sendEmptyFrame() {
        guard phase == .open else { return }
        output.endFrame(output.beginFrame(channel: 0))
        tellOutput()
    }

    private func write(header kind: UInt8) {
        output.bytes.append(contentsOf: [0x41, 0x4D, 0x51, 0x50, kind, 1, 0, 0])
        tellOutput()
    }

    /// Bytes one frame to the peer may have.
    var remoteFrameByteCount: Int { Int(max(512, min(remoteOpen?.maxFrameSize ?? 512, 16 << 20))) }

    // MARK: Input

    /// Takes bytes in any pieces.
    public func receive(_ bytes: UnsafeRawBufferPointer) {
        guard phase != .closed else { return }
        if pending.isEmpty {
            let used = parse(bytes)
            if phase != .closed, used < bytes.count {
                pending.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[used...]))
            }
            return
        }
        pending.append(contentsOf: bytes)
        // Nothing to do before a frame begun is complete.
        if pending.count >= 4, isFramed {
            let size = pending.withUnsafeBytes { Int(UInt32(bigEndian: $0.loadUnaligned(as: UInt32.self))) }
            if size > pending.count, size <= Int(limits.frameByteCount) { return }
        }
        let whole = pending
        pending = []
        let used = whole.withUnsafeBytes { parse($0) }
        if phase != .closed, used < whole.count { pending = Array(whole[used...]) }
    }

    private var isFramed: Bool { phase != .header && phase != .secondHeader }

    private func parse(_ bytes: UnsafeRawBufferPointer) -> Int {
        var used = 0
        do throws(AMQPError) {
            while phase != .closed {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[used...])
                if !isFramed {
                    guard rest.count >= 8 else { break }
                    try take(header: rest)
                    used += 8
                    continue
                }
                guard rest.count >= 8 else { break }
                let size = Int(UInt32(bigEndian: rest.loadUnaligned(as: UInt32.self)))
                guard size >= 8, size <= Int(limits.frameByteCount) else {
                    throw .framing("a frame of \(size) bytes; \(limits.frameByteCount) are allowed")
                }
                guard rest.count >= size else { break }
                try take(frame: UnsafeRawBufferPointer(rebasing: rest[..<size]))
                used += size
            }
        } catch {
            fail(error)
        }
        return used
    }

    private func take(header: UnsafeRawBufferPointer) throws(AMQPError) {
        guard header[0] == 0x41, header[1] == 0x4D, header[2] == 0x51, header[3] == 0x50, header[5] == 1,
            header[6] == 0, header[7] == 0
        else {
            // The standard's answer to a stranger: our header, then the end.
            if case .server = role { write(header: 3) }
            throw .framing("the bytes do not begin with an AMQP 1.0 header")
        }
        let kind = header[4]
        switch (role, phase) {
        case (.server(let mechanisms), .header) where kind == 3:
            write(header: 3)
            let start = output.beginFrame(channel: 0, type: 1)
            output.composite(AMQPDescriptor.saslMechanisms, count: 1) {
                $0.value(.array(mechanisms.map { .symbol($0) }))
            }
            output.endFrame(start)
            phase = .sasl
        case (.server, .header) where kind == 0:
            // Without SASL the peer is nobody; the owner decides whether nobody may come in.
            write(header: 0)
            guard handler?.authenticate(mechanism: "", response: []) ?? false else {
                throw AMQPError("amqp:unauthorized-access", "a peer must begin with SASL")
            }
            phase = .opening
        case (.server, .secondHeader) where kind == 0:
            write(header: 0)
            phase = .opening
        case (.client, .header) where kind == 3: phase = .sasl
        case (.client, .secondHeader) where kind == 0: phase = .opening
        default: throw .framing("an AMQP header of kind \(kind) was not expected")
        }
    }

    private func take(frame: UnsafeRawBufferPointer) throws(AMQPError) {
        let offset = Int(frame[4]) * 4
        guard offset >= 8, offset <= frame.count else { throw .framing("a frame's data offset is \(frame[4])") }
        let type = frame[5]
        let body = UnsafeRawBufferPointer(rebasing: frame[offset...])
        if phase == .sasl {
            guard type == 1 else { throw .framing("a SASL frame was expected") }
            return try take(sasl: body)
        }
        guard type == 0 else { throw .framing("a frame of type \(type)") }
        if body.isEmpty { return }
        let channel = UInt16(bigEndian: frame.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
        var reader = AMQPReader(body)
        let performative = try Performative.read(&reader)
        try take(performative, channel: channel, rest: UnsafeRawBufferPointer(rebasing: body[reader.position...]))
    }

    private func take(sasl body: UnsafeRawBufferPointer) throws(AMQPError) {
        var reader = AMQPReader(body)
        let descriptor = try reader.descriptor()
        var fields = try reader.fields()
        switch (role, descriptor) {
        case (.server(let mechanisms), AMQPDescriptor.saslInit):
            let mechanism = try fields.text() ?? ""
            let response = try fields.binary() ?? []
            let isWelcome =
                mechanisms.contains(mechanism)
                && (handler?.authenticate(mechanism: mechanism, response: response) ?? false)
            let start = output.beginFrame(channel: 0, type: 1)
            output.composite(AMQPDescriptor.saslOutcome, count: 2) { writer in
                writer.ubyte(isWelcome ? 0 : 1)
                writer.null()
            }
            output.endFrame(start)
            tellOutput()
            guard isWelcome else {
                phase = .closed
                handler?.connectionDidClose(AMQPError("amqp:unauthorized-access", "SASL \(mechanism) was refused"))
                return
            }
            phase = .secondHeader
        case (.client(let mechanism, let response), AMQPDescriptor.saslMechanisms):
            let value = try fields.value()
            let offered = value.elements?.compactMap(\.text) ?? value.text.map { [$0] } ?? []
            guard let mechanism, offered.contains(mechanism) else {
                throw AMQPError(
                    "amqp:unauthorized-access", "the broker offers \(offered.joined(separator: ", ")) only")
            }
            let start = output.beginFrame(channel: 0, type: 1)
            output.composite(AMQPDescriptor.saslInit, count: 3) { writer in
                writer.symbol(mechanism)
                writer.binary(response)
                if let host = localOpen.hostname { writer.string(host) } else { writer.null() }
            }
            output.endFrame(start)
            tellOutput()
        case (.client, AMQPDescriptor.saslOutcome):
            let code = try fields.ubyte() ?? 255
            guard code == 0 else {
                throw AMQPError("amqp:unauthorized-access", "the broker refused the credentials (SASL code \(code))")
            }
            write(header: 0)
            sendOpen()
            phase = .secondHeader
        default: throw .framing("a SASL frame of an unknown kind")
        }
    }

    private func take(
        _ performative: Performative, channel: UInt16, rest: UnsafeRawBufferPointer
    ) throws(AMQPError) {
        switch performative {
        case .open(let open):
            guard phase == .opening else { throw .illegal("a second open") }
            guard open.maxFrameSize >= 512 else { throw .framing("max-frame-size is below 512") }
            remoteOpen = open
            if case .server = role { sendOpen() }
            phase = .open
            handler?.connectionDidOpen(open)
        case .close(let error):
            if phase != .closing { send(.close(nil)) }
            end(error)
        case _ where phase != .open:
            guard phase == .closing else { throw .illegal("a performative before open") }
        case .begin(let begin): try take(begin, channel: channel)
        case .end where ending.remove(channel) != nil: break
        case _ where ending.contains(channel): break
        default:
            guard let session = sessions[UInt64(channel)] else { throw .illegal("channel \(channel) has no session") }
            do throws(AMQPError) {
                try session.take(performative, rest: rest)
            } catch {
                // A session's errors end the session; the connection goes on.
                session.fail(error)
            }
        }
    }

    private func take(_ begin: AMQPBegin, channel: UInt16) throws(AMQPError) {
        guard channel <= limits.channelMax else { throw .framing("channel \(channel) is above channel-max") }
        if let mine = begin.remoteChannel {
            guard let session = localChannels[mine], session.remoteChannel == nil else {
                throw .illegal("a begin that answers none")
            }
            session.remoteChannel = channel
            session.begin(begin)
            sessions[UInt64(channel)] = session
            return
        }
        guard sessions[UInt64(channel)] == nil else { throw .illegal("channel \(channel) has a session already") }
        let session = AMQPSession(connection: self, localChannel: freeChannel())
        session.remoteChannel = channel
        session.begin(begin)
        sessions[UInt64(channel)] = session
        localChannels[session.localChannel] = session
        var answer = session.localBegin
        answer.remoteChannel = channel
        send(.begin(answer), channel: session.localChannel)
    }

    private func freeChannel() -> UInt16 {
        var channel: UInt16 = 0
        while localChannels[channel] != nil { channel += 1 }
        return channel
    }

    // MARK: Acting

    /// Client: begins a session; links can be attached to it at once.
    public func beginSession() -> AMQPSession {
        let session = AMQPSession(connection: self, localChannel: freeChannel())
        localChannels[session.localChannel] = session
        send(.begin(session.localBegin), channel: session.localChannel)
        return session
    }

    /// Closes from our side; the handler hears of the end once.
    public func close(_ error: AMQPError? = nil) {
        guard phase == .open else { return end(error) }
        send(.close(error))
        phase = .closing
    }

    /// The stream has ended without a close.
    public func streamEnded(_ error: AMQPError?) { end(error) }

    /// A session we ended because of an error.
    func discard(_ session: AMQPSession) {
        if let remote = session.remoteChannel { ending.insert(remote) }
        forget(session)
    }

    func forget(_ session: AMQPSession) {
        localChannels[session.localChannel] = nil
        if let remote = session.remoteChannel { sessions[UInt64(remote)] = nil }
    }

    private func fail(_ error: AMQPError) {
        if phase == .open || phase == .opening {
            if phase == .opening, case .server = role { sendOpen() }
            send(.close(error))
        }
        end(error)
    }

    private func end(_ error: AMQPError?) {
        guard phase != .closed else { return }
        phase = .closed
        let ended = Array(localChannels.values)
        localChannels = [:]
        sessions = NumberMap()
        for session in ended { session.connectionEnded(error) }
        handler?.connectionDidClose(error)
    }
}
