/// The Service Bus trigger: takes messages from an entity, runs the function, and tells the broker what became of each.
internal import AMQP
internal import DequeModule
public import Diagnostics
public import EventLoops
public import FunctionApps
public import Invocations
public import ServiceBus

/// What a `serviceBusTrigger` says itself.
public struct ServiceBusTriggerOptions: Sendable, Equatable {
    /// The queue, sub-queue or subscription.
    public var entity: String
    public var isSessionsEnabled = false
    /// `cardinality: many`.
    public var isBatch = false
    public var autoCompletes: Bool
    public var maxBatchSize: Int

    public init(entity: String, configuration: ServiceBusConfiguration) {
        self.entity = entity
        autoCompletes = configuration.autoCompleteMessages
        maxBatchSize = configuration.maxMessageBatchSize
    }
}

/// Listens to one entity for one function.
@EventLoop
public final class ServiceBusListener: TriggerListener {
    public var source: String { options.entity }
    public private(set) var failure: (any HostError)?
    let functionName: String
    let options: ServiceBusTriggerOptions
    let configuration: ServiceBusConfiguration
    private let client: BusClient
    private let dispatcher: any InvocationDispatching
    private let log: EventLog
    private var lanes: [ServiceBusLane] = []
    private var random = RandomBytes()
    private var ticker: LoopTimer?
    private var isListening = false
    private var settled: Gate?
    private var attempts = AttemptCounter()
    /// The function cannot run at all until then; monotonic.
    private(set) var pausedUntil: UInt64 = 0
    private var pause = ServiceBusListener.shortestPause

    static let shortestPause = Duration.seconds(1)
    static let longestPause = Duration.seconds(30)
    /// How often locks and waits are looked at.
    static let tickInterval = Duration.milliseconds(250)

    public init(
        functionName: String, options: ServiceBusTriggerOptions, configuration: ServiceBusConfiguration,
        client: BusClient, dispatcher: any InvocationDispatching, log: EventLog
    ) {
        self.functionName = functionName
        self.options = options
        self.configuration = configuration
        self.client = client
        self.dispatcher = dispatcher
        self.log = log
        ticker = LoopTimer { [weak self] in self?.tick() }
    }

    // MARK: Life

    public func start() {
        guard !isListening else { return }
        isListening = true
        let count = options.isSessionsEnabled ? configuration.maxConcurrentSessions : 1
        lanes = (0..<count).map { _ in ServiceBusLane(listener: self, client: client) }
        for lane in lanes { lane.start() }
        ticker?.start(after: Self.tickInterval, every: Self.tickInterval)
        log.log(
            .debug, "ServiceBus listener started",
            [
                ("function", .text(functionName)), ("entity", .text(options.entity)),
                ("sessions", .flag(options.isSessionsEnabled)), ("batch", .flag(options.isBatch)),
            ])
    }

    public func stop() async {
        guard isListening else { return }
        isListening = false
        let closing = Gate()
        var left = lanes.count
        for lane in lanes {
            loopTask {
                await lane.close()
                left -= 1
                if left == 0 { closing.open() }
            }
        }
        await closing.wait()
        if runningCount > 0 {
            let gate = Gate()
            settled = gate
            await gate.wait()
        }
        ticker?.stop()
        for lane in lanes { lane.stop() }
        lanes = []
    }

    /// The host cannot wait any longer: what runs goes back without counting as an attempt.
    public func abandonUnfinished() { for lane in lanes { lane.giveBack() } }

    private var runningCount: Int { lanes.reduce(0) { $0 + $1.running.count } }

    private func tick() {
        if pausedUntil > 0, monotonicNanoseconds() >= pausedUntil {
            pausedUntil = 0
            for lane in lanes { lane.resume() }
        }
        for lane in lanes { lane.tick() }
    }

    // MARK: What lanes tell

    func attached() {
        guard failure != nil else { return }
        failure = nil
        log.log(.information, "the broker of '\(options.entity)' answers again", [("function", .text(functionName))])
    }

    func detached(_ error: AMQPError) {
        if error.condition == "com.microsoft:timeout" { return }
        let problem = ServiceBusFailure(entity: options.entity, error: error)
        if failure?.message != problem.message, isListening {
            log(
                HostEvent(
                    .log, .error,
                    "Message processing error (Action=Receive, EntityPath=\(options.entity)): \(problem.description)",
                    [("function", .text(functionName)), ("code", .text(problem.code))]))
        }
        failure = problem
    }

    func lockWasLost(_ message: BusMessage, after milliseconds: Int64, mayRenew: Bool) {
        let reason =
            options.isBatch
            ? "locks of batches are not renewed"
            : mayRenew ? "it could not be renewed" : "maxAutoLockRenewalDuration is over"
        log.log(
            .warning,
            "the lock of a message of '\(options.entity)' ended after \(milliseconds) ms while '\(functionName)' runs: \(reason); the message comes again",
            [
                ("function", .text(functionName)), ("entity", .text(options.entity)),
                ("message_id", .text(message.message.properties.messageID.text ?? "")),
            ])
    }

    /// Runs the function on some messages of one lane.
    func run(_ messages: [BusMessage], lane: ServiceBusLane) {
        guard let first = messages.first else { return }
        let isBatch = options.isBatch
        var event = TriggerEvent(
            trigger: "queue", body: isBatch ? batchBody(messages) : first.contents)
        let count = { @EventLoop [self] (message: BusMessage) in
            client.isServiceBus ? Int(message.message.header.deliveryCount) + 1 : attempts.failures(of: message) + 1
        }
        event.data =
            isBatch ? batchData(messages, deliveryCount: count) : triggerData(first, deliveryCount: count(first))
        event.source = options.entity
        event.attempt = isBatch ? 1 : count(first)
        let invocation = Invocation(
            id: InvocationID(from: &random), functionName: functionName, event: event,
            stages: StageTimes(entering: .bind, at: monotonicNanoseconds()))
        invocation.settlement = { [self] outcome in settle(messages, outcome, lane) }
        dispatcher.dispatch(invocation).whenDone { [self] outcome in
            // Without having been settled the function was not there any more.
            for message in messages where !message.isSettled {
                if case .failed(let failure) = outcome, failure.code == "AN4010" {
                    lane.receiver?.release(message)
                }
            }
            lane.ended(messages)
            if runningCount == 0 { settled?.open() }
        }
    }

    // MARK: Settling

    private func settle(
        _ messages: [BusMessage], _ outcome: InvocationOutcome, _ lane: ServiceBusLane
    ) -> Eventual<Void> {
        guard let problem = problem(of: outcome) else {
            pause = Self.shortestPause
            for message in messages { attempts.forget(message) }
            guard options.autoCompletes else { return .now(()) }
            return settleAll(messages, lane) { _ in .complete }
        }
        // A function that does not start must not turn every message into a dead letter.
        let isMessages = problem.fault == .user && problem.code != "AN4001" && !problem.code.hasPrefix("AN5")
        guard isMessages else {
            pausedUntil = monotonicNanoseconds() + pause.wholeNanoseconds
            pause = min(pause * 2, Self.longestPause)
            for lane in lanes { lane.hold() }
            for message in messages { lane.receiver?.release(message) }
            return .now(())
        }
        pause = Self.shortestPause
        return settleAll(messages, lane) { [self] message in
            guard !client.isServiceBus, attempts.isLast(message) else { return .abandon }
            return .deadLetter(reason: "MaxDeliveryCountExceeded", description: problem.message)
        }
    }

    private func settleAll(
        _ messages: [BusMessage], _ lane: ServiceBusLane, _ fate: (BusMessage) -> BusOutcome
    ) -> Eventual<Void> {
        guard let receiver = lane.receiver else { return .now(()) }
        let answers = messages.map { receiver.settle($0, fate($0)) }
        return .later { done in
            var left = answers.count
            for answer in answers {
                answer.whenDone { [self] isRecorded in
                    if !isRecorded {
                        log.log(
                            .warning, "a message's lock was lost before its outcome was recorded; it comes again",
                            [("function", .text(functionName)), ("entity", .text(options.entity))])
                    }
                    left -= 1
                    if left == 0 { done(()) }
                }
            }
        }
    }

    private func problem(of outcome: InvocationOutcome) -> InvocationFailure? {
        switch outcome {
        case .failed(let failure): return failure
        case .completed(let response):
            if let failure = response.failure { return failure }
            guard response.status >= 400 else { return nil }
            return InvocationFailure(code: "AN4004", fault: .user, message: "the script answered \(response.status)")
        }
    }
}

/// Why messages cannot be had at the moment.
struct ServiceBusFailure: HostError {
    let entity: String
    let error: AMQPError
    var code: String { "AN8008" }
    var fault: Fault { .service }
    var message: String { "'\(entity)': \(error)" }
    var remedy: String? {
        error.condition == "amqp:not-found" ? "create the queue, or name it in Config.json" : nil
    }
}

/// Counts attempts for brokers that do not.
@EventLoop
struct AttemptCounter {
    private var counts: [SHA256Digest: Int] = [:]

    /// Attempts before a message is rejected, where the broker has no limit of its own.
    static let limit = 10
    /// Messages that are counted at once; beyond it counting begins anew.
    static let capacity = 10_000

    /// Attempts that have failed so far.
    func failures(of message: BusMessage) -> Int { counts.isEmpty ? 0 : counts[message.identity] ?? 0 }

    /// Notes a failed attempt, and whether it was the last one.
    mutating func isLast(_ message: BusMessage) -> Bool {
        if counts.count >= Self.capacity { counts.removeAll() }
        let key = message.identity
        let count = (counts[key] ?? 0) + 1
        counts[key] = count < Self.limit ? count : nil
        return count >= Self.limit
    }

    mutating func forget(_ message: BusMessage) {
        if !counts.isEmpty { counts[message.identity] = nil }
    }
}
