/// The storage-queue trigger: messages are taken, run, and removed when the function has done them.
///
/// Counts and messages are those of the Functions storage extension (QueueListener, QueueProcessor).
public import Diagnostics
public import EventLoops
public import FunctionApps
public import Invocations
internal import JSONText
public import StorageAccounts

/// Listens to one queue for one function.
@EventLoop
public final class QueueListener: TriggerListener {
    public let source: String
    public private(set) var failure: (any HostError)?
    private let functionName: String
    private let store: any QueueStore
    private let configuration: QueuesConfiguration
    private let dispatcher: any InvocationDispatching
    private let log: EventLog
    private var random = RandomBytes()
    private var isListening = false
    private var isTaking = false
    private var mustTakeAgain = false
    private var token: Int?
    private var running: [String: Held] = [:]
    private var timer: LoopTimer?
    private var renewal: LoopTimer?
    private var pollInterval = QueueListener.shortestPoll
    private var settled: Gate?

    private struct Held {
        var message: QueueMessage
        var renewedAt: UInt64
    }

    /// Seconds a taken message is nobody else's; renewed at half of it.
    static let visibility = 600.0
    /// The first pause between looks at an empty queue of another service; doubled up to maxPollingInterval.
    static let shortestPoll = Duration.milliseconds(100)
    /// The pause after a queue could not be read.
    static let failurePause = Duration.seconds(1)

    public init(
        functionName: String, queue: String, store: any QueueStore, configuration: QueuesConfiguration,
        dispatcher: any InvocationDispatching, log: EventLog
    ) {
        self.functionName = functionName
        source = queue
        self.store = store
        self.configuration = configuration
        self.dispatcher = dispatcher
        self.log = log
        timer = LoopTimer { [unowned self] in self.takeMore() }
        renewal = LoopTimer { [unowned self] in self.renew() }
    }

    public func start() {
        guard !isListening else { return }
        isListening = true
        renewal?.start(after: .seconds(60), every: .seconds(60))
        guard let folder = store as? FolderAccount else { return takeMore() }
        token = folder.ledger.observe(queue: source) { [unowned self] in takeMore() }
        loopTask { [self] in
            // What a host that was killed had taken is nobody's: the folder has no other host.
            _ = await folder.ledger.releaseTaken(queue: source).value()
            takeMore()
        }
    }

    public func stop() async {
        guard isListening else { return }
        isListening = false
        timer?.stop()
        renewal?.stop()
        if let token { (store as? FolderAccount)?.ledger.endObserving(token) }
        guard !running.isEmpty || isTaking else { return }
        let gate = Gate()
        settled = gate
        await gate.wait()
    }

    // MARK: Taking

    private func takeMore() {
        guard isListening else { return }
        guard !isTaking else {
            mustTakeAgain = true
            return
        }
        guard running.count <= configuration.newBatchThreshold else { return }
        isTaking = true
        mustTakeAgain = false
        loopTask { [self] in
            await take()
            isTaking = false
            if mustTakeAgain { takeMore() }
            endIfDone()
        }
    }

    private func take() async {
        do throws(StorageError) {
            let messages = try await store.take(
                queue: source, count: configuration.batchSize, visibility: Self.visibility)
            if failure != nil {
                log.log(.information, "the queue can be read again", [("function", .text(functionName))])
            }
            failure = nil
            for message in messages { run(message) }
            if messages.count == configuration.batchSize {
                mustTakeAgain = true
            } else {
                await waitForMore(isEmpty: messages.isEmpty)
            }
        } catch {
            if failure?.code != error.code {
                log(
                    HostEvent(
                        .log, .error, error.description,
                        [("function", .text(functionName)), ("code", .text(error.code))]))
            }
            failure = error
            if isListening { timer?.start(after: Self.failurePause) }
        }
    }

    /// The folder says when a message comes; only those that are hidden for a while need a clock. Other services are
    /// asked again and again.
    private func waitForMore(isEmpty: Bool) async {
        guard isListening else { return }
        guard let folder = store as? FolderAccount else {
            pollInterval = isEmpty ? min(pollInterval * 2, configuration.maxPollingInterval) : Self.shortestPoll
            timer?.start(after: pollInterval)
            return
        }
        guard case .success(let moment?) = await folder.ledger.nextVisible(queue: source).value() else { return }
        let seconds = min(max(moment - wallClockSeconds(), 0.001), 3600)
        if isListening { timer?.start(after: .milliseconds(Int(seconds * 1000) + 1)) }
    }

    private func renew() {
        let now = monotonicNanoseconds()
        let half = UInt64(Self.visibility / 2 * 1e9)
        for (guid, held) in running where now - held.renewedAt > half {
            running[guid]?.renewedAt = now
            loopTask { [self] in
                if let renewed = try? await store.update(held.message, queue: source, visibility: Self.visibility) {
                    running[guid]?.message = renewed
                }
            }
        }
    }

    // MARK: Running

    private func run(_ message: QueueMessage) {
        running[message.guid] = Held(message: message, renewedAt: monotonicNanoseconds())
        let text = String(decoding: message.body, as: UTF8.self)
        guard let body = configuration.isBase64 ? decodeBase64(text) : message.body else {
            log(
                HostEvent(
                    .log, .error, "a message of queue '\(source)' is not Base64 and goes to '\(source)-poison'",
                    [("function", .text(functionName)), ("message_id", .text(message.guid))]))
            loopTask { [self] in
                await persist(message.guid) { (held) throws(StorageError) in
                    try await self.store.move(held, from: self.source, to: self.source + "-poison")
                }
                end(message.guid)
            }
            return
        }
        var event = TriggerEvent(trigger: "queue", body: body)
        event.data = Self.data(message, body)
        event.source = source
        event.attempt = message.dequeueCount
        let invocation = Invocation(
            id: InvocationID(from: &random), functionName: functionName, event: event,
            stages: StageTimes(entering: .bind, at: monotonicNanoseconds()))
        invocation.settlement = { [self] outcome in .awaiting { await self.settle(message, outcome) } }
        dispatcher.dispatch(invocation).whenDone { [self] _ in end(message.guid) }
    }

    /// `queueTrigger` and what else the extension gives, then the properties of a JSON body.
    static func data(_ message: QueueMessage, _ body: [UInt8]) -> BindingData {
        var data = BindingData()
        data.set("queueTrigger", String(decoding: body, as: UTF8.self))
        data.set("DequeueCount", .integer(message.dequeueCount))
        data.set("Id", message.guid)
        data.set("PopReceipt", message.popReceipt)
        data.set("InsertionTime", .time(message.inserted))
        data.set("ExpirationTime", .time(message.expires))
        data.set("NextVisibleTime", .time(message.visible))
        if body.first == UInt8(ascii: "{"), let json = try? JSONParser.parse(body) { data.set(properties: json) }
        return data
    }

    private func settle(_ message: QueueMessage, _ outcome: InvocationOutcome) async {
        let failed: Bool =
            switch outcome {
            case .failed: true
            case .completed(let response): response.failure != nil || response.status >= 400
            }
        let guid = message.guid
        if !failed {
            await persist(guid) { (held) throws(StorageError) in
                _ = try await self.store.delete(held, queue: self.source)
            }
        } else if message.dequeueCount >= configuration.maxDequeueCount {
            let poison = source + "-poison"
            log(
                HostEvent(
                    .log, .warning,
                    "Message has reached MaxDequeueCount of \(configuration.maxDequeueCount). Moving message to queue '\(poison)'.",
                    [("function", .text(functionName)), ("message_id", .text(guid))]))
            await persist(guid) { (held) throws(StorageError) in
                try await self.store.move(held, from: self.source, to: poison)
            }
        } else {
            let pause = configuration.visibilityTimeout.inSeconds
            await persist(guid) { (held) throws(StorageError) in
                _ = try await self.store.update(held, queue: self.source, visibility: pause)
            }
        }
    }

    /// Does what must be kept, as often as it takes: a message that is done must not come again.
    private func persist(
        _ guid: String, _ action: @EventLoop (QueueMessage) async throws(StorageError) -> Void
    ) async {
        var pause = Self.failurePause
        while let held = running[guid]?.message {
            do throws(StorageError) {
                try await action(held)
                return
            } catch {
                // It has been taken or removed by somebody else.
                if case .refused(_, let status, _) = error, status == 404 || status == 400 { return }
                if failure?.code != error.code {
                    log(HostEvent(.log, .error, error.description, [("code", .text(error.code))]))
                }
                failure = error
                await sleep(for: pause)
                pause = min(pause * 2, .seconds(30))
            }
        }
    }

    private func end(_ guid: String) {
        running[guid] = nil
        if running.count <= configuration.newBatchThreshold { takeMore() }
        endIfDone()
    }

    private func endIfDone() {
        if running.isEmpty, !isTaking { settled?.open() }
    }
}
