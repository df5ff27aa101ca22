/// `/score` and `/swagger.json`: the face of the Azure ML scoring server, for its clients.
internal import Bindings
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages
internal import HTTPServers
internal import Invocations
internal import JSONText
internal import Scoring
internal import Triggers
internal import Workers

/// Speaks for one function of the app.
@EventLoop
final class ScoringAPI {
    private unowned let host: FunctionHost
    private var random = RandomBytes()

    init(host: FunctionHost) { self.host = host }

    func respond(to request: HTTPRequest) -> Eventual<HTTPResponse>? {
        switch String(decoding: request.head.path, as: UTF8.self) {
        case "/score": score(request)
        case "/swagger.json": .awaiting { [self] in await swagger(request) ?? HTTPResponse(status: 404) }
        default: nil
        }
    }

    private func score(_ request: HTTPRequest) -> Eventual<HTTPResponse>? {
        guard let runtime = host.scoreRuntime else { return nil }
        let head = request.head
        var stages = StageTimes(entering: .accept, at: request.receivedAt)
        stages.enter(.auth, at: monotonicNanoseconds())
        if let refusal = refusal(head, runtime) ?? refusedMethod(head, runtime) { return .now(refusal) }
        let id = InvocationID(from: &random)
        let (ids, tooLong) = ScoringRequestIDs.read(head, generated: "\(id)")
        guard let ids else { return tooLong.map { .now($0) } }
        stages.enter(.bind, at: monotonicNanoseconds())
        let event = TriggerEvent(trigger: "http", body: request.body, head: head)
        let invocation = Invocation(id: id, functionName: runtime.metadata.name, event: event, stages: stages)
        return host.dispatcher.dispatch(invocation).map { outcome in
            scoringServerResponse(invocation, outcome, ids: ids)
        }
    }

    /// The scoring server's own answers to other methods; a raw script gets them all.
    private func refusedMethod(_ head: RequestHead, _ runtime: FunctionRuntime) -> HTTPResponse? {
        if runtime.python?.pool?.report?.mode == .rawhttp || head.isMethod("GET") || head.isMethod("POST") {
            return nil
        }
        if head.isMethod("OPTIONS") {
            return HTTPResponse(status: 200, contentType: "text/html; charset=utf-8", body: [])
        }
        return head.isMethod("HEAD") ? scoringMessage(405, "Method not allowed") : methodNotAllowed
    }

    private var methodNotAllowed: HTTPResponse {
        scoringMessage(405, "The method is not allowed for the requested URL.")
    }

    /// With `--enable-auth` the function's key, as `Authorization: Bearer` too, as Azure's front end takes it.
    private func refusal(_ head: RequestHead, _ runtime: FunctionRuntime) -> HTTPResponse? {
        guard host.options.enablesAuth, let level = runtime.metadata.http?.authLevel, level != .anonymous else {
            return nil
        }
        let name = runtime.metadata.name
        var caller = callerLevel(head, host.keys, function: name)
        if caller == nil, let bearer = head.value("authorization"), bearer.hasPrefix("Bearer ") {
            caller = try? host.keys.level(of: String(bearer.dropFirst(7)), function: name)
        }
        return caller == .admin || caller == level ? nil : HTTPResponse(status: 401)
    }

    private func swagger(_ request: HTTPRequest) async -> HTTPResponse? {
        guard let runtime = host.scoreRuntime, let python = runtime.python else { return nil }
        guard request.head.isMethod("GET") || request.head.isMethod("HEAD") else { return methodNotAllowed }
        let written = PercentCoding.query(request.head.query).first { $0.name == "version" }?.value ?? "2"
        let version = ["2.0": "2", "3.0": "3"][written] ?? written
        do throws(InvocationFailure) {
            let documents = try await python.waitForReport().swagger
            let supported = documents.keys.sorted().joined(separator: ", ")
            guard ["2", "3", "3.1"].contains(version) else {
                return scoringMessage(
                    404, "Swagger version [\(written)] is not valid. Supported versions: [\(supported)].")
            }
            guard let document = documents[version] else {
                return scoringMessage(
                    404,
                    "Swagger version [\(written)] is not supported for the scoring script. Supported swagger versions: [\(supported)]."
                )
            }
            return .json(200, Array(document.utf8))
        } catch {
            return scoringMessage(error.status, error.message)
        }
    }
}
