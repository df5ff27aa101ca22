/// One connection to one Redis server: commands of one turn sent together, replies in order.
internal import DequeModule
internal import EventLoops

/// Connects when told to, in the background; a command while there is no connection fails at once.
@EventLoop
final class RedisConnection: ByteStreamReader {
    typealias Completion = @EventLoop (Result<RedisReply, RedisError>) -> Void

    private enum State {
        /// Nobody is connected. Leaves to `connecting`, `closed`.
        case idle
        /// A stream is opened, secured, introduced. Leaves to `ready`, `idle`, `closed`.
        case connecting
        /// Commands can be sent. Leaves to `idle`, `closed`.
        case ready
        case closed
    }

    private struct Waiting {
        var done: Completion?
        let deadline: UInt64
        let limit: Duration
    }

    let endpoint: RedisEndpoint
    private weak var client: RedisClient?
    private let address: RedisAddress
    private let connectTimeout: Duration
    private var state = State.idle
    private var stream: ByteStream?
    private var replies: RedisReplyReader?
    private var waiting: Deque<Waiting> = []
    private var failures = 0
    private(set) var nextAttempt: UInt64 = 0
    private var timer: LoopTimer?
    private var timerDeadline = UInt64.max
    /// Why there is no connection; nil while there is one, and before the first attempt has failed.
    private(set) var lastError: RedisError?
    /// Whether the server called itself a replica when it was last asked.
    private(set) var isReplica = false
    /// The server's reply to `CLUSTER SLOTS` when the connection was made.
    private(set) var slots: RedisReply?

    /// Commands that may wait for their replies.
    static let waitingLimit = 65_536
    /// The longest pause between two attempts to connect.
    static let retryPauseLimit = Duration.seconds(5)
    /// The same after the password was refused: more attempts help nobody.
    static let refusedPauseLimit = Duration.seconds(60)
    /// A server that has answered nothing for this long is taken for dead.
    private static let silenceLimit = Duration.seconds(2)
    /// How long replies nobody waits for may take.
    private static let ignoredLimit = Duration.seconds(30)

    init(endpoint: RedisEndpoint, client: RedisClient) {
        self.endpoint = endpoint
        self.client = client
        address = client.address
        connectTimeout = client.connectTimeout
        timer = LoopTimer { [unowned self] in self.expire() }
    }

    var isReady: Bool {
        if case .ready = state { true } else { false }
    }

    var isWorking: Bool {
        if case .connecting = state { true } else { isReady }
    }

    /// Connects when there is no connection and the pause after the last failure is over; never waits.
    func connectIfNeeded() {
        guard case .idle = state, monotonicNanoseconds() >= nextAttempt else { return }
        state = .connecting
        loopTask { [self] in await connect() }
    }

    // MARK: Commands

    /// Sends a command; `done` gets its reply, or why there is none, within `limit`.
    func send(_ arguments: [[UInt8]], limit: Duration?, _ done: Completion?) {
        guard isReady, waiting.count < Self.waitingLimit else {
            done?(.failure(isReady ? .unavailable("\(Self.waitingLimit) commands wait already") : notReady))
            return
        }
        enqueue(arguments, limit: limit ?? Self.ignoredLimit, done)
    }

    /// What a command gets while there is no connection.
    var notReady: RedisError { lastError ?? .unavailable("not connected yet") }

    private func enqueue(_ arguments: [[UInt8]], limit: Duration, _ done: Completion?) {
        stream?.output { RedisCommand.append(arguments, to: &$0) }
        let deadline = monotonicNanoseconds() + limit.wholeNanoseconds
        waiting.append(Waiting(done: done, deadline: deadline, limit: limit))
        if done != nil { expireBefore(deadline) }
    }

    /// Makes sure that the timer fires by `deadline`; a later one is brought forward.
    private func expireBefore(_ deadline: UInt64) {
        guard deadline < timerDeadline else { return }
        timerDeadline = deadline
        timer?.start(after: .nanoseconds(Int64(deadline - min(deadline, monotonicNanoseconds()))))
    }

    /// Gives up on commands past their time; their late replies are dropped when they come.
    private func expire() {
        let now = monotonicNanoseconds()
        timerDeadline = .max
        var next = UInt64.max
        var late: [Waiting] = []
        for index in waiting.indices where waiting[index].done != nil {
            if waiting[index].deadline <= now {
                late.append(waiting[index])
                waiting[index].done = nil
            } else {
                next = min(next, waiting[index].deadline)
            }
        }
        if let first = waiting.first {
            let isSilent = now > first.deadline + Self.silenceLimit.wholeNanoseconds
            if isSilent {
                fail(.timedOut(Self.silenceLimit))
            } else {
                expireBefore(min(next, first.deadline + Self.silenceLimit.wholeNanoseconds + 1_000_000))
            }
        }
        for one in late { one.done?(.failure(.timedOut(one.limit))) }
    }

    // MARK: Connecting

    private func connect() async {
        do throws(RedisError) {
            let opened = try await open()
            guard case .connecting = state, let reader = RedisReplyReader() else { return opened.close() }
            stream = opened
            replies = reader
            opened.startReading(to: self)
            try await introduce()
            guard case .connecting = state else { return }
            state = .ready
            failures = 0
            lastError = nil
            client?.didOpen(self)
        } catch {
            fail(error)
        }
    }

    private func open() async throws(RedisError) -> ByteStream {
        let context = address.usesTLS ? try await client?.tlsContext() : nil
        let gate = Gate()
        var outcome: Result<ByteStream, SystemError>?
        loopTask { [endpoint] in
            do throws(SystemError) {
                if let path = endpoint.unixPath {
                    outcome = .success(try await ByteStream.connect(unixPath: path))
                } else {
                    outcome = .success(try await ByteStream.connect(host: endpoint.host, port: endpoint.port))
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
        case .success(let stream):
            guard let context else { return stream }
            do throws(TLSError) {
                try await stream.startTLS(
                    context, peer: "\(endpoint)", serverName: address.serverName(for: endpoint),
                    timeout: connectTimeout)
            } catch {
                throw .tls(error)
            }
            return stream
        case .failure(let error): throw .unavailable(error.message)
        case nil: throw .unavailable("no connection to \(endpoint) within \(connectTimeout)")
        }
    }

    /// Says who we are and asks what the server is, in one round trip.
    private func introduce() async throws(RedisError) {
        var commands: [[String]] = [["PING"], ["ROLE"], ["CLUSTER", "SLOTS"]]
        if address.database != 0 { commands.insert(["SELECT", "\(address.database)"], at: 0) }
        if let name = address.clientName { commands.insert(["CLIENT", "SETNAME", name], at: 0) }
        if let password = address.password {
            commands.insert(["AUTH"] + (address.user.map { [$0] } ?? []) + [password], at: 0)
        }
        let answers = await exchange(commands)
        for (command, answer) in zip(commands, answers) {
            let reply = try answer.get()
            guard case .error(let text) = reply else {
                if command[0] == "ROLE", case .array(let parts) = reply, case .bytes(let role)? = parts.first {
                    isReplica = role == Array("slave".utf8)
                }
                if command[0] == "CLUSTER" { slots = reply }
                continue
            }
            switch command[0] {
            case "AUTH": throw .refused(text)
            case "PING" where ["NOAUTH", "WRONGPASS"].contains { text.hasPrefix($0) }: throw .refused(text)
            case "PING" where text.hasPrefix("NOPERM"): break
            case "PING", "SELECT": throw .server(text)
            // An ACL may forbid to ask for role and slots; then it is taken for one plain primary.
            default: if command[0] == "CLUSTER" { slots = nil }
            }
        }
    }

    private func exchange(_ commands: [[String]]) async -> [Result<RedisReply, RedisError>] {
        await withUnsafeContinuation { continuation in
            var answers: [Result<RedisReply, RedisError>] = []
            for command in commands {
                enqueue(command.map { Array($0.utf8) }, limit: connectTimeout) { answer in
                    answers.append(answer)
                    if answers.count == commands.count { continuation.resume(returning: answers) }
                }
            }
        }
    }

    // MARK: The end

    /// Drops the connection; what waits gets `error`. Another attempt follows after a pause.
    func fail(_ error: RedisError) {
        if case .closed = state { return }
        state = .idle
        drop(error)
        failures += 1
        var limit = Self.retryPauseLimit
        if case .refused = error {
            failures = max(failures, 6)
            limit = Self.refusedPauseLimit
        }
        let pause = min(.milliseconds(50) * (1 << min(failures, 12)), limit)
        nextAttempt = monotonicNanoseconds() + pause.wholeNanoseconds
        lastError = error
        client?.didFail(self)
    }

    private func drop(_ error: RedisError) {
        let old = stream
        stream = nil
        replies = nil
        old?.close()
        let pending = waiting
        waiting = []
        timer?.stop()
        timerDeadline = .max
        for one in pending { one.done?(.failure(error)) }
    }

    /// Closes for good.
    func close() {
        state = .closed
        drop(.unavailable("closed"))
    }

    // MARK: Replies

    func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        guard let replies else { return }
        do throws(RedisError) {
            for reply in try replies.feed(bytes) {
                guard let one = waiting.popFirst() else { throw .protocolBroken("a reply nobody asked for") }
                one.done?(.success(reply))
            }
        } catch {
            fail(error)
        }
    }

    func streamDidEnd(_ error: SystemError?) {
        if case .connecting = state, error == nil {
            return fail(.unavailable("\(endpoint) closed the connection before it answered"))
        }
        fail(.unavailable(error?.message ?? "the server closed the connection"))
    }
}

/// Commands as bytes.
enum RedisCommand {
    /// Appends a command with its arguments, as RESP has it.
    static func append(_ arguments: [[UInt8]], to bytes: inout [UInt8]) {
        append(UInt8(ascii: "*"), arguments.count, to: &bytes)
        for argument in arguments {
            append(UInt8(ascii: "$"), argument.count, to: &bytes)
            bytes.append(contentsOf: argument)
            bytes.append(0x0D)
            bytes.append(0x0A)
        }
    }

    private static func append(_ mark: UInt8, _ number: Int, to bytes: inout [UInt8]) {
        bytes.append(mark)
        if number < 10 {
            bytes.append(UInt8(ascii: "0") + UInt8(number))
        } else if number < 100 {
            bytes.append(UInt8(ascii: "0") + UInt8(number / 10))
            bytes.append(UInt8(ascii: "0") + UInt8(number % 10))
        } else {
            bytes.append(contentsOf: "\(number)".utf8)
        }
        bytes.append(0x0D)
        bytes.append(0x0A)
    }
}
