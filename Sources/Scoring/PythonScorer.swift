/// Scores with an Azure ML entry script in worker processes.
public import Bundles
internal import ConfigurationFiles
public import Diagnostics
public import EventLoops
internal import HTTPMessages
public import Invocations
internal import JSONText
public import Workers

/// One bundle's script as a scorer. The bundle is read, and its workers started, in the background.
@EventLoop
public final class PythonScorer: Scorer {
    /// The workers; nil until the bundle has been read.
    public private(set) var pool: WorkerPool?
    /// Why the bundle cannot be used.
    public private(set) var loadFailure: InvocationFailure?
    private let folder: String
    private let script: String?
    private let log: EventLog
    private let makePool: @EventLoop (Bundle) -> WorkerPool
    private var loaded = Gate()
    private var isLoading = false
    private var mustReload = false
    private var isStopped = false

    /// - Parameters:
    ///   - folder: the bundle's.
    ///   - script: the entry script, when the function names it.
    ///   - makePool: makes the workers of a bundle that has been read.
    public init(folder: String, script: String?, log: EventLog, makePool: @escaping @EventLoop (Bundle) -> WorkerPool) {
        self.folder = folder
        self.script = script
        self.log = log
        self.makePool = makePool
    }

    /// Reads the bundle and starts its workers. When it has been read before and has changed, new calls wait for
    /// the new workers, and the old ones end when their calls are done.
    public func load() {
        guard !isLoading else {
            mustReload = true
            return
        }
        isLoading = true
        loopTask { [self] in
            repeat {
                mustReload = false
                await loadOnce()
            } while mustReload
            isLoading = false
            loaded.open()
        }
    }

    private func loadOnce() async {
        let result = await offload { [folder, script] () -> Result<Bundle, BundleError> in
            do throws(BundleError) {
                return .success(try Bundle.load(folder: folder, script: script))
            } catch {
                return .failure(error)
            }
        }
        switch result {
        case .failure(let error):
            log(HostEvent(.configError, .error, error.description, [("code", .text(error.code))]))
            loadFailure = InvocationFailure(
                code: error.code, fault: error.fault, message: error.message, remedy: error.remedy,
                detail: error.place.map { "\($0)" })
        case .success(let bundle):
            loadFailure = nil
            if pool?.bundle.digest == bundle.digest || isStopped { return }
            for warning in bundle.warnings { log(HostEvent(.configError, .warning, warning.text)) }
            let old = pool
            let new = makePool(bundle)
            pool = new
            new.start()
            if let old {
                log.log(
                    .information, "code reloaded",
                    [("function", .text(old.functionName)), ("in_flight_on_old", .integer(old.status.busy))])
                await old.stop()
            }
        }
    }

    /// Lets calls finish and ends the workers.
    public func stop() async {
        isStopped = true
        await pool?.stop()
    }

    /// Waits until the script is known, or cannot be started.
    public func waitForReport() async throws(InvocationFailure) -> ScriptReport {
        try await readyPool().waitForReport()
    }

    private func readyPool() async throws(InvocationFailure) -> WorkerPool {
        if let pool, loadFailure == nil { return pool }
        if pool == nil, loadFailure == nil { await loaded.wait() }
        if let loadFailure { throw loadFailure }
        guard let pool else {
            throw InvocationFailure(
                code: "AN4009", fault: .host, message: "the function is being unloaded", status: 503,
                retryAfterSeconds: 1)
        }
        return pool
    }

    public var identity: InputIdentity? {
        guard let pool, loadFailure == nil, let report = pool.report else { return nil }
        return identity(pool, report)
    }

    public func prepare(_ invocation: Invocation) async throws(InvocationFailure) -> InputIdentity {
        invocation.enter(.workerWait)
        let pool = try await readyPool()
        let report = try await pool.waitForReport()
        invocation.coldStart = pool.coldStart.phases
        invocation.enter(.cacheLookup)
        return identity(pool, report)
    }

    private func identity(_ pool: WorkerPool, _ report: ScriptReport) -> InputIdentity {
        let kind: InputKind =
            switch report.mode {
            case _ where report.wantsHeaders: .headers
            case .rawhttp: .request
            case .schema: .json
            case .text: .bytes
            }
        return InputIdentity(kind: kind, version: pool.bundle.digest)
    }

    public func score(_ invocation: Invocation) -> Eventual<InvocationOutcome> {
        if let pool, loadFailure == nil, let report = pool.report {
            // The usual case: one wait, for the worker's answer.
            invocation.enter(.workerWait)
            if report.mode == .schema, let refusal = refusedContentType(invocation.event.head) {
                return .now(.completed(refusal))
            }
            let input = input(invocation.event, report)
            switch pool.answer(invocation.id, input) {
            case .now(let result): return .now(outcome(result, invocation))
            case .pending(let answer): return .pending(AnswerStep(after: answer, of: invocation, self))
            }
        }
        return .awaiting { [self] in
            do throws(InvocationFailure) {
                return .completed(try await run(invocation))
            } catch {
                return .failed(error)
            }
        }
    }

    private func run(_ invocation: Invocation) async throws(InvocationFailure) -> ScoringResponse {
        invocation.enter(.workerWait)
        let pool = try await readyPool()
        let isCold = pool.report == nil
        let report = try await pool.waitForReport()
        if isCold { invocation.coldStart = pool.coldStart.phases }
        let event = invocation.event
        if report.mode == .schema, let refusal = refusedContentType(event.head) { return refusal }
        return response(try await pool.answer(invocation.id, input(event, report)).value().get(), invocation)
    }

    fileprivate func outcome(
        _ result: Result<WorkerAnswer, InvocationFailure>, _ invocation: Invocation
    ) -> InvocationOutcome {
        switch result {
        case .success(let answer): .completed(response(answer, invocation))
        case .failure(let failure): .failed(failure)
        }
    }

    private func response(_ answer: WorkerAnswer, _ invocation: Invocation) -> ScoringResponse {
        if let coldStart = answer.coldStart { invocation.coldStart = coldStart.phases }
        // The worker's own clock tells how much of the time was run(); the rest was waiting and passing on.
        invocation.stages.attribute(answer.result.runNanoseconds, to: .score, at: monotonicNanoseconds())
        invocation.enter(.score)
        return response(answer.result)
    }

    /// A decorated script takes JSON only. `curl -d` says it sends a form, and is believed to mean JSON.
    private func refusedContentType(_ head: RequestHead?) -> ScoringResponse? {
        guard let head, !head.isMethod("GET"), let type = head.value("content-type")?.lowercased() else { return nil }
        let media = type.prefix { $0 != ";" && $0 != " " }
        let isJSON = media == "application/json" || (media.hasPrefix("application/") && media.hasSuffix("+json"))
        if isJSON || media == "application/x-www-form-urlencoded" { return nil }
        return ScoringResponse(
            status: 415, body: Array(#"{"message": "Expects Content-Type to be application/json"}"#.utf8))
    }

    private func input(_ event: TriggerEvent, _ report: ScriptReport) -> WorkerInput {
        guard let head = event.head else {
            if report.mode != .rawhttp, !report.wantsHeaders { return .body(event.body) }
            // A script that asks for a request gets one: a POST whose headers say what the trigger knows.
            return .request(
                RequestParts(
                    method: "POST", path: "/", query: nil, headers: Self.headers(of: event), body: event.body))
        }
        let isPlain = report.mode != .rawhttp && !report.wantsHeaders && !head.isMethod("GET")
        if isPlain { return .body(event.body) }
        return .request(
            RequestParts(
                method: head.method,
                path: PercentCoding.decode(head.path) ?? String(decoding: head.path, as: UTF8.self),
                query: head.query.map { String(decoding: $0, as: UTF8.self) }, headers: head.allFields, body: event.body
            ))
    }

    private static func headers(of event: TriggerEvent) -> [(name: String, value: String)] {
        var headers = [(name: "Content-Type", value: "application/octet-stream")]
        var told: Set<String> = []
        for name in event.data.names where told.insert(name.lowercased()).inserted {
            guard name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x3A }),
                let text = event.data[name]?.plainText,
                !text.isEmpty, !text.utf8.contains(where: { $0 < 0x20 })
            else { continue }
            headers.append(("X-Trigger-\(name)", text))
        }
        return headers
    }

    private func response(_ result: WorkerResult) -> ScoringResponse {
        var fields = HTTPFields()
        fields.append(lines: result.headerLines)
        return ScoringResponse(
            status: result.status, contentType: result.contentType.isEmpty ? nil : result.contentType, fields: fields,
            body: result.body, runFunctionFailed: result.runFailed, runNanoseconds: result.runNanoseconds,
            failure: result.failure.isEmpty ? nil : failure(result.failure))
    }

    private func failure(_ bytes: [UInt8]) -> InvocationFailure {
        let json = try? JSONParser.parse(bytes)
        return InvocationFailure(
            code: json?["code"]?.string ?? "AN4004", fault: .user, message: json?["message"]?.string ?? "run() failed",
            remedy: json?["remedy"]?.string, detail: json?["traceback"]?.string)
    }
}

/// Makes an outcome of a worker's answer.
private final class AnswerStep: Pending<InvocationOutcome>, Receiver {
    private let answer: Pending<Result<WorkerAnswer, InvocationFailure>>
    private let invocation: Invocation
    private let scorer: PythonScorer

    init(
        after answer: Pending<Result<WorkerAnswer, InvocationFailure>>, of invocation: Invocation,
        _ scorer: PythonScorer
    ) {
        self.answer = answer
        self.invocation = invocation
        self.scorer = scorer
    }

    override func start() { answer.pass(to: self) }

    func receive(_ result: Result<WorkerAnswer, InvocationFailure>) { resolve(scorer.outcome(result, invocation)) }
}

/// Answers with its input, or with its size: what the host costs without a model.
@EventLoop
public final class EchoScorer: Scorer {
    private let answersSize: Bool

    /// - Parameter answersSize: `{"bytes": n}` in place of the input.
    public init(answersSize: Bool) { self.answersSize = answersSize }

    public let identity: InputIdentity? = InputIdentity(kind: .bytes, version: EchoScorer.version)
    private static let version = SHA256Digest(of: Array("builtin:echo".utf8))

    public func prepare(_ invocation: Invocation) async throws(InvocationFailure) -> InputIdentity {
        InputIdentity(kind: .bytes, version: Self.version)
    }

    public func score(_ invocation: Invocation) -> Eventual<InvocationOutcome> {
        invocation.enter(.score)
        let input = invocation.event.body
        let body = answersSize ? Array("{\"bytes\": \(input.count)}".utf8) : input
        return .now(.completed(ScoringResponse(body: body)))
    }
}
