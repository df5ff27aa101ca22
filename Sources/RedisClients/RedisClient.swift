/// A Redis client on the loop: one connection, commands of one turn sent together, replies in order.
internal import DequeModule
public import Diagnostics
public import EventLoops
internal import Glibc

/// Connects by itself, in the background; a command while there is no connection fails at once.
@EventLoop
public final class RedisClient: ByteStreamReader {
    public let address: RedisAddress
    private let connectTimeout: Duration
    private let log: EventLog
    private var stream: ByteStream?
    private var replies: RedisReplyReader?
    private var waiting: Deque<Waiting> = []
    private var isConnecting = false
    private var isClosed = false
    private var nextAttempt: UInt64 = 0
    private var failures = 0
    private var timer: LoopTimer?
    private var timerDeadline = UInt64.max
    /// Why there is no connection; nil while there is one.
    public private(set) var lastError: RedisError?

    /// Commands that may wait for their replies.
    public static let waitingLimit = 65_536
    /// The longest pause between two attempts to connect.
    public static let retryPauseLimit = Duration.seconds(5)

    private final class Waiting {
        var continuation: UnsafeContinuation<Result<RedisReply, RedisError>, Never>?
        let deadline: UInt64
        let limit: Duration

        init(_ continuation: UnsafeContinuation<Result<RedisReply, RedisError>, Never>?, _ limit: Duration) {
            self.continuation = continuation
            self.limit = limit
            deadline = monotonicNanoseconds() + limit.wholeNanoseconds
        }
    }

    public init(address: RedisAddress, connectTimeout: Duration, log: EventLog) {
        self.address = address
        self.connectTimeout = connectTimeout
        self.log = log
        timer = LoopTimer { [unowned self] in self.expire() }
    }

    /// Whether commands can be sent now.
    public var isConnected: Bool { stream != nil && !isConnecting }

    /// Connects when there is no connection and the pause after the last failure is over; never waits.
    public func connectIfNeeded() {
        guard stream == nil, !isConnecting, !isClosed, monotonicNanoseconds() >= nextAttempt else { return }
        isConnecting = true
        loopTask { [self] in await connect() }
    }

    /// Sends a command and waits for its reply, at most `limit`.
    public func command(_ arguments: [[UInt8]], limit: Duration) async throws(RedisError) -> RedisReply {
        guard isConnected else {
            connectIfNeeded()
            throw lastError ?? .unavailable("not connected yet")
        }
        return try await exchange(arguments, limit: limit)
    }

    private func exchange(_ arguments: [[UInt8]], limit: Duration) async throws(RedisError) -> RedisReply {
        guard waiting.count < Self.waitingLimit else {
            throw .unavailable("\(Self.waitingLimit) commands wait already")
        }
        let result = await withUnsafeContinuation { continuation in
            send(arguments)
            waiting.append(Waiting(continuation, limit))
            expireBefore(monotonicNanoseconds() + limit.wholeNanoseconds)
        }
        let reply = try result.get()
        if case .error(let text) = reply { throw .server(text) }
        return reply
    }

    /// Sends a command whose reply nobody waits for.
    public func send(ignoringReplyTo arguments: [[UInt8]]) {
        guard isConnected, waiting.count < Self.waitingLimit else { return connectIfNeeded() }
        send(arguments)
        waiting.append(Waiting(nil, .seconds(30)))
    }

    /// Makes sure that the timer fires by `deadline`; a later one is brought forward.
    private func expireBefore(_ deadline: UInt64) {
        guard deadline < timerDeadline else { return }
        timerDeadline = deadline
        timer?.start(after: .nanoseconds(Int64(deadline - min(deadline, monotonicNanoseconds()))))
    }

    private func send(_ arguments: [[UInt8]]) {
        stream?.output { bytes in
            Self.append("*", arguments.count, to: &bytes)
            for argument in arguments {
                Self.append("$", argument.count, to: &bytes)
                bytes.append(contentsOf: argument)
                bytes.append(contentsOf: [0x0D, 0x0A])
            }
        }
    }

    private static func append(_ mark: Character, _ number: Int, to bytes: inout [UInt8]) {
        bytes.append(contentsOf: "\(mark)\(number)\r\n".utf8)
    }

    // MARK: Connecting

    private func connect() async {
        do throws(RedisError) {
            guard !address.usesTLS else {
                throw .unavailable("TLS to Redis is not built in yet; use a plain endpoint (ssl=False, port 6379)")
            }
            let opened = try await open()
            guard !isClosed, let reader = RedisReplyReader() else { return }
            stream = opened
            replies = reader
            opened.startReading(to: self)
            try await authenticate()
            isConnecting = false
            lastError = nil
            if failures > 0 {
                log.log(.information, "Redis is reachable again", [("address", .text(address.description))])
            }
            failures = 0
        } catch {
            fail(error)
        }
    }

    private func open() async throws(RedisError) -> ByteStream {
        let gate = Gate()
        var outcome: Result<ByteStream, SystemError>?
        loopTask { [address] in
            do throws(SystemError) {
                if let path = address.unixPath {
                    outcome = .success(try await ByteStream.connect(unixPath: path))
                } else {
                    outcome = .success(try await ByteStream.connect(host: address.host, port: address.port))
                }
            } catch {
                outcome = .failure(error)
            }
            gate.open()
        }
        let limit = LoopTimer { gate.open() }
        limit.start(after: connectTimeout)
        await gate.wait()
        limit.stop()
        switch outcome {
        case .success(let stream): return stream
        case .failure(let error): throw .unavailable(error.message)
        case nil: throw .unavailable("no connection within \(connectTimeout)")
        }
    }

    private func authenticate() async throws(RedisError) {
        let text = { (words: [String]) in words.map { Array($0.utf8) } }
        if let password = address.password {
            do throws(RedisError) {
                let user = address.user.map { [$0] } ?? []
                _ = try await exchange(text(["AUTH"] + user + [password]), limit: connectTimeout)
            } catch {
                if case .server(let reason) = error { throw .refused(reason) }
                throw error
            }
        }
        if address.database != 0 {
            _ = try await exchange(text(["SELECT", "\(address.database)"]), limit: connectTimeout)
        }
        do throws(RedisError) {
            _ = try await exchange(text(["PING"]), limit: connectTimeout)
        } catch {
            if case .server(let reason) = error, reason.hasPrefix("NOAUTH") { throw .refused(reason) }
            throw error
        }
    }

    private func fail(_ error: RedisError) {
        isConnecting = false
        let stream = stream
        self.stream = nil
        replies = nil
        stream?.close()
        failures += 1
        let pause = min(.milliseconds(100) * (1 << min(failures, 10)), Self.retryPauseLimit)
        nextAttempt = monotonicNanoseconds() + pause.wholeNanoseconds
        if lastError == nil {
            log.log(.warning, error.message, [("code", .text(error.code)), ("address", .text(address.description))])
        }
        lastError = error
        let pending = waiting
        waiting = []
        timer?.stop()
        timerDeadline = .max
        for one in pending { one.continuation?.resume(returning: .failure(error)) }
    }

    /// Closes for good.
    public func close() {
        isClosed = true
        if stream != nil { fail(.unavailable("closed")) }
    }

    // MARK: Replies

    public func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        guard let replies else { return }
        do throws(RedisError) {
            for reply in try replies.feed(bytes) {
                guard !waiting.isEmpty else { throw .protocolBroken("a reply nobody asked for") }
                waiting.removeFirst().continuation?.resume(returning: .success(reply))
            }
        } catch {
            fail(error)
        }
    }

    public func streamDidEnd(_ error: SystemError?) {
        fail(.unavailable(error?.message ?? "the server closed the connection"))
    }

    /// Gives up on commands past their time; their late replies are dropped when they come.
    private func expire() {
        let now = monotonicNanoseconds()
        timerDeadline = .max
        var next = UInt64.max
        for one in waiting where one.continuation != nil {
            if one.deadline <= now {
                one.continuation?.resume(returning: .failure(.timedOut(one.limit)))
                one.continuation = nil
            } else {
                next = min(next, one.deadline)
            }
        }
        if next != .max { expireBefore(next) }
        // A server that has not answered anything for this long is taken for dead.
        if let first = waiting.first, first.continuation == nil,
            now > first.deadline + Self.silenceLimit.wholeNanoseconds
        {
            fail(.timedOut(Self.silenceLimit))
        }
    }

    private static let silenceLimit = Duration.seconds(2)
}
