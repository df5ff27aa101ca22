/// One HTTP/1.1 connection: reads requests, has them answered one after the other, writes the answers.
internal import EventLoops
internal import HTTPMessages

/// Owned by its listener until it is closed.
@EventLoop
final class HTTPConnection: ByteStreamReader, Receiver {
    private enum State {
        /// Between or inside heads. Leaves to `body`, `chunks`, `responding`, `closed`.
        case head
        /// Reading a body of known length. Leaves to `responding`, `closed`.
        case body(RequestHead, filled: Int)
        /// Reading a chunked body. Leaves to `responding`, `closed`.
        case chunks(RequestHead, ChunkedDecoder)
        /// The responder is at work. Leaves to `head`, `closed`.
        case responding(AnswerTerms)
        case closed
    }

    private let stream: ByteStream
    // SAFETY: the listener holds its connections, and lets go of each only when it is closed.
    private unowned(unsafe) let listener: HTTPListener
    private var state = State.head
    private var pending: [UInt8] = []
    private var scanned = 0
    private var body: [UInt8] = []
    private var receivedAt: UInt64 = 0
    private var deadline = 0
    private var isAdvancing = false
    private var isPaused = false
    private var isParting = false
    private var hasEnded = false
    private var hasClosed = false

    private static let lingerSeconds = 2
    private static let headBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16384, alignment: 16)

    init(stream: ByteStream, listener: HTTPListener) {
        self.stream = stream
        self.listener = listener
    }

    private var limits: HTTPLimits { listener.limits }

    func start() {
        setDeadline(limits.idleTimeout)
        stream.startReading(to: self)
    }

    private func setDeadline(_ timeout: Duration) {
        deadline = listener.clockSeconds + Int(timeout.components.seconds) + 1
    }

    // MARK: Reading

    /// A body of known length is read straight into its own memory. Heads come into a small buffer, so that
    /// little of a body that follows has to be copied.
    func streamReadDestination() -> UnsafeMutableRawBufferPointer? {
        guard case .body(_, let filled) = state else { return Self.headBuffer }
        return body.withUnsafeMutableBytes { memory in
            // SAFETY: libuv fills the memory before anything else can touch the array.
            UnsafeMutableRawBufferPointer(rebasing: memory[filled...])
        }
    }

    func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        switch state {
        case .body(let head, let filled):
            setDeadline(limits.bodyTimeout)
            if filled + bytes.count == body.count {
                dispatch(head)
                advance()
            } else {
                state = .body(head, filled: filled + bytes.count)
            }
        case .head where pending.isEmpty && !isAdvancing:
            receivedAt = monotonicNanoseconds()
            advance(over: bytes.bindMemory(to: UInt8.self))
        case .closed: break
        default:
            if case .head = state, pending.isEmpty { receivedAt = monotonicNanoseconds() }
            pending.append(contentsOf: bytes)
            advance()
        }
        pauseIfFull()
    }

    /// Takes requests out of `bytes`, which the stream lends, and keeps what is left over.
    private func advance(over bytes: UnsafeBufferPointer<UInt8>) {
        isAdvancing = true
        var offset = 0
        while offset < bytes.count, case .head = state {
            let rest = UnsafeBufferPointer(rebasing: bytes[offset...])
            let used = takeHead(rest)
            if used == 0 { break }
            offset += used
        }
        isAdvancing = false
        if case .closed = state { return }
        if offset < bytes.count {
            pending.append(contentsOf: bytes[offset...])
            if case .head = state { scanned = pending.count }
            if case .chunks = state { advance() }
        }
    }

    /// Goes on with what is kept in `pending`, as far as it goes.
    private func advance() {
        guard !isAdvancing else { return }
        isAdvancing = true
        defer { isAdvancing = false }
        var progressing = true
        while progressing, !pending.isEmpty {
            progressing = false
            switch state {
            case .head:
                let kept = pending
                guard RequestParser.mayBeComplete(kept.span, from: scanned) || kept.count >= limits.head.headByteCount
                else {
                    scanned = kept.count
                    return
                }
                pending = []
                let used = kept.withUnsafeBufferPointer { takeHead($0) }
                if case .closed = state { return }
                // Whatever arrived meanwhile comes after what was kept.
                pending = Array(kept[used...]) + pending
                scanned = used == 0 ? pending.count : 0
                progressing = used > 0
            case .chunks(let head, var decoder):
                let kept = pending
                let (consumed, progress) = decoder.feed(kept.span, into: &body)
                pending = Array(kept[consumed...])
                setDeadline(limits.bodyTimeout)
                switch progress {
                case .needsMore: state = .chunks(head, decoder)
                case .failed(let error): refuse(error)
                case .complete:
                    dispatch(head)
                    progressing = true
                }
            case .body, .responding, .closed: break
            }
        }
        if case .head = state, hasEnded { close() }
    }

    /// Parses one head and whatever of its body is there; returns the bytes used, 0 for "not yet".
    private func takeHead(_ bytes: UnsafeBufferPointer<UInt8>) -> Int {
        switch RequestParser.parse(bytes.span, limits: limits.head) {
        case .needsMore:
            setDeadline(limits.headTimeout)
            return 0
        case .failed(let error):
            refuse(error)
            return bytes.count
        case .complete(let head, let used):
            scanned = 0
            switch head.framing {
            case .none:
                body = []
                dispatch(head)
                return used
            case .length(let length):
                guard length <= limits.bodyByteCount else {
                    refuse(HTTPParseError(413, "a body of \(length) bytes; the limit is \(limits.bodyByteCount)"))
                    return bytes.count
                }
                return used + beginBody(head, length, UnsafeBufferPointer(rebasing: bytes[used...]))
            case .chunked:
                body = []
                sendContinue(head)
                state = .chunks(head, ChunkedDecoder(bodyLimit: limits.bodyByteCount))
                setDeadline(limits.bodyTimeout)
                return used
            }
        }
    }

    private func beginBody(_ head: consuming RequestHead, _ length: Int, _ rest: UnsafeBufferPointer<UInt8>) -> Int {
        if rest.count >= length {
            body = Array(rest[..<length])
            dispatch(head)
            return length
        }
        if rest.isEmpty { sendContinue(head) }
        body = [UInt8](unsafeUninitializedCapacity: length) { memory, count in
            _ = memory.initialize(from: rest)
            // The remainder is filled by the stream before anything reads it.
            count = length
        }
        state = .body(head, filled: rest.count)
        setDeadline(limits.bodyTimeout)
        return rest.count
    }

    private func sendContinue(_ head: RequestHead) {
        guard head.expectsContinue else { return }
        stream.write(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8))
    }

    // MARK: Answering

    /// What of a request its answer depends on.
    private struct AnswerTerms {
        let keepsAlive: Bool
        let wantsBody: Bool
        let minorVersion: Int
    }

    private func dispatch(_ head: consuming RequestHead) {
        let terms = AnswerTerms(
            keepsAlive: head.keepsAlive, wantsBody: !head.isMethod("HEAD"), minorVersion: head.minorVersion)
        let request = HTTPRequest(head: head, body: body, receivedAt: receivedAt)
        body = []
        state = .responding(terms)
        deadline = .max
        switch listener.responder.respond(to: request) {
        case .now(let response): receive(response)
        case .pending(let pending): pending.pass(to: self)
        }
    }

    /// Takes the answer of the request under way.
    func receive(_ response: HTTPResponse) {
        guard case .responding(let terms) = state else { return }
        let keepsAlive = terms.keepsAlive && !listener.isDraining && !(hasEnded && pending.isEmpty)
        let sendsBody = response.allowsBody && terms.wantsBody
        let date = listener.httpDate()
        stream.output {
            response.appendHead(to: &$0, date: date, keepsAlive: keepsAlive, minorVersion: terms.minorVersion)
        }
        if sendsBody, !response.body.isEmpty { stream.write(response.body) }
        guard keepsAlive else {
            part(lingering: !pending.isEmpty)
            return
        }
        state = .head
        setDeadline(limits.idleTimeout)
        if !pending.isEmpty {
            receivedAt = monotonicNanoseconds()
            scanned = 0
            advance()
        }
        resumeIfPossible()
    }

    private func refuse(_ error: HTTPParseError) {
        let response = listener.responder.refusal(error)
        stream.output {
            response.appendHead(to: &$0, date: listener.httpDate(), keepsAlive: false, minorVersion: 1)
        }
        stream.write(response.body)
        part(lingering: true)
    }

    /// Closes once everything is written. When the client may still be sending, its bytes are read and
    /// dropped until it closes or two seconds have passed: closing over unread bytes would reset the
    /// connection and could take the answer with it.
    private func part(lingering: Bool) {
        state = .closed
        pending = []
        isParting = true
        deadline = listener.clockSeconds + Self.lingerSeconds
        stream.finishWriting { [weak self] in
            if !lingering { self?.close() }
        }
        if isPaused, lingering {
            isPaused = false
            stream.startReading(to: self)
        }
    }

    // MARK: Back-pressure and ends

    /// Stops reading while the client sends faster than it is answered, or takes nothing.
    private func pauseIfFull() {
        guard !isPaused, !isParting else { return }
        let waits = if case .responding = state { true } else { false }
        guard (waits && pending.count > limits.head.headByteCount) || stream.bufferedByteCount > limits.outputByteCount
        else { return }
        isPaused = true
        stream.stopReading()
        if stream.bufferedByteCount > limits.outputByteCount { setDeadline(limits.writeTimeout) }
    }

    private func resumeIfPossible() {
        guard isPaused, case .head = state, stream.bufferedByteCount <= limits.outputByteCount else { return }
        isPaused = false
        stream.startReading(to: self)
    }

    func streamDidDrain() {
        if isParting { return }
        if case .head = state { setDeadline(limits.idleTimeout) }
        resumeIfPossible()
    }

    /// A client may close its side after its last request; it still gets its answers.
    func streamDidEnd(_ error: SystemError?) {
        hasEnded = true
        if error != nil || isParting { return close() }
        switch state {
        case .responding: break
        case .head where !pending.isEmpty: advance()
        default: close()
        }
    }

    func checkDeadline(_ now: Int) {
        guard now >= deadline else { return }
        switch state {
        case .head where pending.isEmpty: close()
        case .head: refuse(HTTPParseError(408, "the head took longer than \(limits.headTimeout)"))
        case .body, .chunks: refuse(HTTPParseError(408, "the body made no progress for \(limits.bodyTimeout)"))
        case .responding, .closed: close()
        }
    }

    func closeIfIdle() {
        if case .head = state, pending.isEmpty { part(lingering: false) }
    }

    func close() {
        guard !hasClosed else { return }
        hasClosed = true
        state = .closed
        stream.close()
        listener.closed(self)
    }
}
