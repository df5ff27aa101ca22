/// A stream that speaks TLS: the same type for its owners, before and after.
internal import CUV
internal import Glibc

extension ByteStream {
    /// Time a TLS handshake may take unless the caller says otherwise.
    public static let handshakeTimeout = Duration.seconds(10)

    private static let openedBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16384, alignment: 16)

    /// Connects to a TCP host and shakes hands; `serverName` is asked for and checked in the place of `host`.
    ///
    /// - Throws: ``SystemError`` or ``TLSError``.
    public static func connect(
        host: String, port: Int, tls context: TLSContext, serverName: String? = nil,
        timeout: Duration = ByteStream.handshakeTimeout
    ) async throws -> ByteStream {
        let stream = try await connect(host: host, port: port)
        try await stream.startTLS(context, peer: "\(host):\(port)", serverName: serverName ?? host, timeout: timeout)
        return stream
    }

    /// Shakes hands on a connected stream that nobody reads; from then on its bytes are encrypted.
    ///
    /// Which side this is, `context` knows. A stream whose handshake failed is closed.
    /// - Parameters:
    ///   - peer: the other side, for messages.
    ///   - serverName: the name to ask for and to find in the certificate; not used by a server.
    public func startTLS(
        _ context: TLSContext, peer: String, serverName: String? = nil, timeout: Duration = ByteStream.handshakeTimeout
    ) async throws(TLSError) {
        guard !isClosed, tls == nil else { throw .closed(peer: peer) }
        guard let session = TLSSession(context: context, peer: peer, serverName: serverName) else {
            throw .handshake(peer: peer, reason: "out of memory")
        }
        tls = session
        let limit = LoopTimer { session.finish(.timedOut(peer: peer, limit: timeout)) }
        limit.start(after: timeout)
        let error: TLSError? = await withUnsafeContinuation { continuation in
            session.whenFinished { continuation.resume(returning: $0) }
            readFromSystem()
            shakeHands(session)
        }
        limit.stop()
        if let error {
            close()
            throw error
        }
    }

    /// The protocol in use, for example `TLSv1.3`; nil for a plain stream.
    public var tlsVersion: String? { tls?.version }

    private func shakeHands(_ session: TLSSession) {
        switch session.advance() {
        case .needsMore: break
        case .established:
            // Until somebody reads, the system keeps what comes.
            if session.reader == nil { uv_read_stop(stream) }
            session.finish(nil)
        case .failed(let error): return session.finish(error)
        }
        markDirty()
    }

    /// What the peer should still hear, an alert or the goodbye, as far as the system takes it at once.
    func sendLastRecords(_ session: TLSSession) {
        session.withOutput { records in
            var buffer = uv_buf_init(
                UnsafeMutableRawPointer(mutating: records.baseAddress)?.assumingMemoryBound(to: CChar.self),
                UInt32(records.count))
            uv_try_write(stream, &buffer, 1)
        }
    }

    func receivedSealed(_ session: TLSSession, _ count: Int, _ base: UnsafeRawPointer?) {
        guard count > 0 else {
            uv_read_stop(stream)
            guard session.isEstablished else { return session.finish(.closed(peer: session.peer)) }
            pendingEnd =
                count == Int(UV_EOF.rawValue)
                ? SystemError(tls: "the connection ended without a TLS close", peer: session.peer)
                : SystemError("read", Int32(count), session.peer)
            return deliverOpened(session)
        }
        session.feed(UnsafeRawBufferPointer(start: base, count: count))
        if session.isEstablished { deliverOpened(session) } else { shakeHands(session) }
    }

    /// Gives the reader what has arrived, as long as it reads.
    func deliverOpened(_ session: TLSSession) {
        guard session.isEstablished else { return }
        while !isClosed, let reader = session.reader {
            let memory = reader.streamReadDestination() ?? Self.openedBuffer
            switch session.read(into: memory) {
            case .bytes(let count):
                reader.streamDidRead(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<count]))
            case .needsMore:
                if session.hasOutput { markDirty() }
                guard let end = pendingEnd else { return }
                pendingEnd = nil
                stopReading()
                return reader.streamDidEnd(end)
            case .ended:
                pendingEnd = nil
                stopReading()
                return reader.streamDidEnd(nil)
            case .failed(let reason):
                pendingEnd = nil
                stopReading()
                return reader.streamDidEnd(SystemError(tls: reason, peer: session.peer))
            }
        }
    }
}
