/// Every HTTP request to the host: health and admin first, then functions, then the host's other pages.
internal import Images
internal import Bindings
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages
internal import HTTPServers
internal import Invocations
internal import JSONText
internal import Resources
internal import Triggers

/// Routes requests; the order is the Functions host's.
@EventLoop
final class HostResponder: HTTPResponder {
    // SAFETY: the host owns its responder.
    private unowned(unsafe) let host: FunctionHost
    private let admin: AdminAPI
    private let health: HealthAPI
    private let storage: StorageAPI
    private let cacheAPI: CacheAPI
    private let broker: BrokerAPI
    private let scoring: ScoringAPI
    private let output: HTTPOutput
    // What the loaded app says about every answer; see ``update()``.
    private var cors: CrossOriginPolicy?
    private var customHeaders: [CustomHeader] = []

    init(host: FunctionHost) {
        self.host = host
        admin = AdminAPI(host: host)
        health = HealthAPI(host: host)
        storage = StorageAPI(host: host)
        cacheAPI = CacheAPI(host: host)
        broker = BrokerAPI(host: host)
        scoring = ScoringAPI(host: host)
        output = HTTPOutput(isStrict: host.options.isStrict, logPath: host.logPath)
        update()
    }

    /// Takes over what the app that has just been loaded says.
    func update() {
        customHeaders = host.app.configuration.http.customHeaders
        let local = host.app.localHost
        cors = (host.options.corsOrigins ?? local.cors.map { [$0] }).map { origins in
            CrossOriginPolicy(
                origins: origins.flatMap { $0.split(separator: ",").map { String($0.drop(while: \.isWhitespace)) } },
                allowsCredentials: host.options.corsCredentials || local.corsCredentials)
        }
    }

    func respond(to request: HTTPRequest) -> Eventual<HTTPResponse> {
        guard let cors, let origin = request.head.value("origin") else { return answer(request) }
        if let preflight = cors.preflight(request.head, origin: origin) { return .now(preflight) }
        return answer(request).map { response in
            var response = response
            cors.append(origin: origin, to: &response.fields)
            return response
        }
    }

    func refusal(_ error: HTTPParseError) -> HTTPResponse {
        errorResponse(error.status, code: "AN3001", error.reason)
    }

    private func answer(_ request: HTTPRequest) -> Eventual<HTTPResponse> {
        // Nearly every request is for a function below the prefix; two bytes tell the others apart.
        let path = request.head.path
        let second = path.dropFirst().first
        if second == UInt8(ascii: "a"), path.starts(with: Self.adminPrefix) {
            if let response = storage.respond(to: request, admin) { return response.map { [self] in custom($0) } }
            if let response = cacheAPI.respond(to: request, admin) { return response.map { [self] in custom($0) } }
            if let response = broker.respond(to: request, admin) { return response.map { [self] in custom($0) } }
            return .now(custom(admin.respond(to: request)))
        }
        if second != UInt8(ascii: "a"), let response = health.respond(to: request) { return .now(response) }
        if let imageApp = host.imageApp, path.elementsEqual(Self.webhookPath) {
            return .now(webhook(imageApp, request))
        }
        if let imageApp = host.imageApp, host.state == .starting { return coldStart(imageApp, request) }
        if let refusal = unavailable() { return .now(refusal) }
        switch host.trigger?.handle(request) {
        case .running(let invocation, .now(let outcome)): return .now(response(invocation, outcome))
        case .running(let invocation, .pending(let outcome)):
            return .pending(ResponseStep(after: outcome, of: invocation, self))
        case .refused(let response): return .now(response.status == 429 ? response : custom(response))
        case nil: return fallback(request).map { [self] in custom($0) }
        }
    }

    fileprivate func response(_ invocation: Invocation, _ outcome: InvocationOutcome) -> HTTPResponse {
        custom(output.response(invocation, outcome))
    }

    private static let webhookPath = Array("/docker/hook".utf8)

    /// A registry tells that an image was pushed: ACR sends one event, Docker's registry an envelope of several.
    private func webhook(_ imageApp: ImageApp, _ request: HTTPRequest) -> HTTPResponse {
        guard request.head.isMethod("POST") else { return HTTPResponse(status: 405) }
        let given = request.head.value("authorization").flatMap { text in
            text.lowercased().hasPrefix("basic ") ? decodeBase64(String(text.dropFirst(6))) : nil
        }
        let password = given.flatMap { bytes in
            bytes.firstIndex(of: UInt8(ascii: ":")).map { Array(bytes[($0 + 1)...]) }
        }
        let wanted = WebhookPassword(stateFolder: host.options.stateFolder).existing
        guard let wanted, let password, constantTimeEqual(password, Array(wanted.utf8)) else {
            var response = errorResponse(401, code: "AN3004", "the webhook's password is missing or wrong")
            response.fields.add("WWW-Authenticate", "Basic realm=\"docker hook\"")
            return response
        }
        let document = try? JSONParser.parse(request.body)
        let events = document?["events"]?.elements ?? [document].compactMap { $0 }
        let pushes = events.filter { $0["action"]?.string == "push" }
        let isOurs = pushes.contains { event in
            imageApp.imageWasPushed(
                repository: event["target"]?["repository"]?.string, tag: event["target"]?["tag"]?.string)
        }
        return HTTPResponse(status: isOurs ? 202 : 200)
    }

    private var waitingForImage = 0

    /// Requests that may wait for a cold start.
    private static let coldStartQueueLimit = 10_000

    private static let adminPrefix = Array("/admin/".utf8)

    /// Waits for the image, as long as a request may; then, or when it cannot come, says how things stand.
    private func coldStart(_ imageApp: ImageApp, _ request: HTTPRequest) -> Eventual<HTTPResponse> {
        if case .starting = imageApp.state, waitingForImage < Self.coldStartQueueLimit {
            return .awaiting { [self] in
                waitingForImage += 1
                await imageApp.wait(atMost: imageApp.settings?.requestWait ?? .seconds(60))
                waitingForImage -= 1
                if host.state == .starting { return coldStartAnswer(imageApp) }
                return await answer(request).value()
            }
        }
        return .now(coldStartAnswer(imageApp))
    }

    private func coldStartAnswer(_ imageApp: ImageApp) -> HTTPResponse {
        var retryAfter = "10"
        let body = jsonObject { writer in
            switch imageApp.state {
            case .starting, .running:
                writer.member("code", "AN9015")
                writer.member("message", "the app is starting: \(imageApp.coldStart.phase)")
            case .inactive(let why):
                retryAfter = "30"
                writer.member("code", "AN9016")
                writer.member("message", "the app is inactive: \(why)")
            case .failed(let error):
                retryAfter = "60"
                writer.member("code", error.code)
                writer.member("message", error.message)
                if let remedy = error.remedy { writer.member("try", remedy) }
            }
            writer.member("image", imageApp.settings?.image ?? "")
            imageApp.coldStart.write(to: &writer)
        }
        var response = HTTPResponse.json(503, body)
        response.fields.add("Retry-After", retryAfter)
        return response
    }

    /// The answer while no function can run; nil when they can.
    private func unavailable() -> HTTPResponse? {
        guard host.state != .running || host.drainState != .disabled else { return nil }
        var response = HTTPResponse.text(503, "Function host is not running.")
        response.fields.add("Retry-After", "1")
        return response
    }

    private func fallback(_ request: HTTPRequest) -> Eventual<HTTPResponse> {
        if request.head.path.elementsEqual("/".utf8) { return .now(homepage()) }
        return scoring.respond(to: request) ?? broker.rest(request) ?? .now(HTTPResponse(status: 404))
    }

    private func homepage() -> HTTPResponse {
        if host.app.settings["AzureWebJobsDisableHomepage"]?.lowercased() == "true" { return HTTPResponse(status: 204) }
        let rows = host.runtimes.map { runtime in
            let function = runtime.metadata
            let methods = function.http?.methods?.joined(separator: ", ") ?? "any method"
            return
                "<li><b>\(escapeHTML(function.name))</b>: \(escapeHTML(methods)) <code>\(escapeHTML(host.url(of: function) ?? function.triggerType))</code></li>"
        }
        let page = """
            <!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
            <title>Your Azure Function App is up and running.</title></head><body>
            <h1>Your Azure Function App is up and running.</h1>
            <p>Andiron \(escapeHTML(host.options.version)) serves:</p><ul>\(rows.joined())</ul>
            <p><a href="/openapi.json">openapi.json</a> <a href="/metrics">metrics</a>
            <a href="/readyz?verbose">readyz</a></p></body></html>

            """
        return HTTPResponse(status: 200, contentType: "text/html; charset=utf-8", body: Array(page.utf8))
    }

    /// host.json's customHeaders, unless the response has them.
    private func custom(_ response: consuming HTTPResponse) -> HTTPResponse {
        for header in customHeaders where !response.fields.contains(header.name) {
            response.fields.add(header.name, header.value)
        }
        return response
    }
}

/// Makes the response of an invocation that had to wait.
private final class ResponseStep: Pending<HTTPResponse>, Receiver {
    private let outcome: Pending<InvocationOutcome>
    private let invocation: Invocation
    private let responder: HostResponder

    init(after outcome: Pending<InvocationOutcome>, of invocation: Invocation, _ responder: HostResponder) {
        self.outcome = outcome
        self.invocation = invocation
        self.responder = responder
    }

    override func start() { outcome.pass(to: self) }

    func receive(_ outcome: InvocationOutcome) { resolve(responder.response(invocation, outcome)) }
}

/// `<`, `>`, `&` and quotes made harmless.
func escapeHTML(_ text: String) -> String {
    text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;").replacing(
        "\"", with: "&quot;")
}

/// Cross-origin requests, as the Functions CLI allows them: any header, any method, for the origins given.
struct CrossOriginPolicy {
    let origins: [String]
    let allowsCredentials: Bool

    private func isAllowed(_ origin: String) -> Bool { origins.contains("*") || origins.contains(origin) }

    /// The answer to a preflight request; nil when it is none.
    func preflight(_ head: RequestHead, origin: String) -> HTTPResponse? {
        guard head.isMethod("OPTIONS"), let method = head.value("access-control-request-method") else { return nil }
        var response = HTTPResponse(status: 204)
        guard isAllowed(origin) else { return response }
        append(origin: origin, to: &response.fields)
        response.fields.add("Access-Control-Allow-Methods", method)
        if let headers = head.value("access-control-request-headers") {
            response.fields.add("Access-Control-Allow-Headers", headers)
        }
        return response
    }

    func append(origin: String, to fields: inout HTTPFields) {
        fields.add("Vary", "Origin")
        guard isAllowed(origin), !fields.contains("Access-Control-Allow-Origin") else { return }
        fields.add("Access-Control-Allow-Origin", origins.contains("*") && !allowsCredentials ? "*" : origin)
        if allowsCredentials { fields.add("Access-Control-Allow-Credentials", "true") }
    }
}
