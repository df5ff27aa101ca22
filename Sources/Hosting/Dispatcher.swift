/// The path of an invocation: retries, cache, scorer; then its record.
internal import Bindings
internal import Diagnostics
public import EventLoops
public import Invocations
internal import Scoring

/// Runs invocations of the functions that are loaded.
@EventLoop
public final class Dispatcher: InvocationDispatching {
    private var runtimes: [String: FunctionRuntime] = [:]
    private let log: EventLog
    /// Invocations under way.
    public private(set) var inFlight = 0
    /// Invocations since the start.
    public private(set) var completed = 0
    private var quiet: Gate?

    init(log: EventLog) { self.log = log }

    func use(_ runtimes: [FunctionRuntime]) {
        self.runtimes = Dictionary(runtimes.map { ($0.metadata.name, $0) }) { first, _ in first }
    }

    public func dispatch(_ invocation: Invocation) -> Eventual<InvocationOutcome> {
        guard let runtime = runtimes[invocation.functionName] else {
            return .now(
                .failed(
                    InvocationFailure(
                        code: "AN4010", fault: .host,
                        message: "the function '\(invocation.functionName)' is not loaded any more", status: 503,
                        retryAfterSeconds: 1)))
        }
        inFlight += 1
        runtime.metrics.inFlight += 1
        let first = run(invocation, runtime)
        guard let policy = runtime.metadata.retry else {
            switch first {
            case .now(let outcome) where invocation.settlement == nil:
                finish(invocation, outcome, runtime)
                return .now(outcome)
            default: return .pending(DispatchStep(after: first, of: invocation, runtime, self))
            }
        }
        return .awaiting { [self] in
            var outcome = await first.value()
            var retry = 1
            while outcome.failure?.fault == .user, let delay = policy.delay(beforeRetry: retry) {
                invocation.enter(.workerWait)
                await sleep(for: delay)
                outcome = await run(invocation, runtime).value()
                retry += 1
            }
            await invocation.settlement?(outcome).value()
            finish(invocation, outcome, runtime)
            return outcome
        }
    }

    /// Inputs, the function itself, outputs; a function whose bindings are all HTTP has only the middle one.
    private func run(_ invocation: Invocation, _ runtime: FunctionRuntime) -> Eventual<InvocationOutcome> {
        guard let bindings = runtime.bindings else { return runtime.pipeline.score(invocation) }
        return .awaiting {
            do throws(InvocationFailure) {
                invocation.inputs = []
                try await bindings.read(invocation)
                if let input = invocation.inputs.first { invocation.event.body = input.value ?? [] }
                let outcome = await runtime.pipeline.score(invocation).value()
                guard let response = outcome.response, outcome.failure == nil, response.status < 400 else {
                    return outcome
                }
                invocation.enter(.output)
                try await bindings.write(response, for: invocation)
                return outcome
            } catch {
                return .failed(error)
            }
        }
    }

    fileprivate func finish(_ invocation: Invocation, _ outcome: InvocationOutcome, _ runtime: FunctionRuntime) {
        invocation.enter(.output)
        invocation.stages.finish(at: monotonicNanoseconds())
        inFlight -= 1
        completed += 1
        let failure = outcome.failure
        runtime.metrics.inFlight -= 1
        runtime.metrics.record(invocation.stages, succeeded: failure == nil)
        if failure == nil {
            log.success { record(of: invocation, outcome) }
        } else {
            log(HostEvent(record(of: invocation, outcome)))
        }
        if let failure, let detail = failure.detail {
            log.log(
                .error, detail,
                [("function", .text(invocation.functionName)), ("invocation_id", .text("\(invocation.id)"))])
        }
        if inFlight == 0 { quiet?.open() }
    }

    private func record(of invocation: Invocation, _ outcome: InvocationOutcome) -> InvocationRecord {
        let failure = outcome.failure
        var record = InvocationRecord(
            id: invocation.id, functionName: invocation.functionName, trigger: invocation.event.trigger,
            succeeded: failure == nil, status: failure?.status ?? outcome.response?.status ?? 0,
            cache: invocation.cache,
            stages: invocation.stages, inputByteCount: invocation.event.body.count,
            outputByteCount: outcome.response?.body.count ?? 0, failure: failure.map { "\($0.code) \($0.message)" })
        record.source = invocation.event.source
        record.parent = invocation.event.parent
        record.attempt = invocation.event.attempt
        return record
    }

    /// Waits until nothing is under way.
    func waitUntilQuiet() async {
        guard inFlight > 0 else { return }
        let gate = Gate()
        quiet = gate
        await gate.wait()
    }
}

/// The way back of an invocation that had to wait: its trigger settles the event, then it is recorded.
private final class DispatchStep: Pending<InvocationOutcome>, Receiver {
    private let first: Eventual<InvocationOutcome>
    private let invocation: Invocation
    private let runtime: FunctionRuntime
    private let dispatcher: Dispatcher

    init(
        after first: Eventual<InvocationOutcome>, of invocation: Invocation, _ runtime: FunctionRuntime,
        _ dispatcher: Dispatcher
    ) {
        self.first = first
        self.invocation = invocation
        self.runtime = runtime
        self.dispatcher = dispatcher
    }

    override func start() {
        switch first {
        case .now(let outcome): receive(outcome)
        case .pending(let pending): pending.pass(to: self)
        }
    }

    func receive(_ outcome: InvocationOutcome) {
        guard let settlement = invocation.settlement else { return finish(outcome) }
        settlement(outcome).whenDone { [self] in finish(outcome) }
    }

    private func finish(_ outcome: InvocationOutcome) {
        dispatcher.finish(invocation, outcome, runtime)
        resolve(outcome)
    }
}

extension InvocationOutcome {
    /// The failure, whether the scorer threw it or the script reported it.
    var failure: InvocationFailure? {
        switch self {
        case .failed(let failure): failure
        case .completed(let response): response.failure
        }
    }

    var response: ScoringResponse? {
        if case .completed(let response) = self { response } else { nil }
    }
}
