/// Scores with an Azure ML entry script in worker processes.
internal import Diagnostics
public import EventLoops
internal import HTTPMessages
public import Invocations
internal import JSONText
public import Workers

/// One bundle's script as a scorer.
@EventLoop
public final class PythonScorer: Scorer {
    public let pool: WorkerPool

    public init(pool: WorkerPool) { self.pool = pool }

    public func inputKind(for invocation: Invocation) async throws(InvocationFailure) -> InputKind {
        let report: ScriptReport
        if let known = pool.report {
            report = known
        } else {
            invocation.enter(.workerWait)
            report = try await pool.waitForReport()
            invocation.coldStart = pool.coldStart.phases
            invocation.enter(.cacheLookup)
        }
        if report.wantsHeaders { return .headers }
        switch report.mode {
        case "rawhttp": return .request
        case "schema": return .json
        default: return .bytes
        }
    }

    public func score(_ invocation: Invocation) async throws(InvocationFailure) -> ScoringResponse {
        invocation.enter(.workerWait)
        let report = try await pool.waitForReport()
        let event = invocation.event
        if report.mode == "schema", let refusal = refusedContentType(event.head) { return refusal }
        let answer = try await pool.call(invocation.id, input(event, report))
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
        return ScoringResponse(status: 415, body: Array(#"{"message": "Expects Content-Type to be application/json"}"#.utf8))
    }

    private func input(_ event: TriggerEvent, _ report: ScriptReport) -> WorkerInput {
        guard let head = event.head else { return .body(event.body) }
        let isPlain = report.mode != "rawhttp" && !report.wantsHeaders && !head.isMethod("GET")
        if isPlain { return .body(event.body) }
        return .request(
            RequestParts(
                method: head.method, path: PercentCoding.decode(head.path) ?? String(decoding: head.path, as: UTF8.self),
                query: head.query.map { String(decoding: $0, as: UTF8.self) }, headers: head.allFields, body: event.body))
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

/// Answers with its input: what the host costs without a model.
@EventLoop
public final class EchoScorer: Scorer {
    public init() {}

    public func inputKind(for invocation: Invocation) async throws(InvocationFailure) -> InputKind { .bytes }

    public func score(_ invocation: Invocation) async throws(InvocationFailure) -> ScoringResponse {
        invocation.enter(.score)
        return ScoringResponse(body: invocation.event.body)
    }
}
