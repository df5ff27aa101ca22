/// A registry, spoken to as the distribution specification says: who we are, what failed, when to try again.
public import Diagnostics
public import EventLoops
public import HTTPClients
internal import JSONText

/// How a registry is reached.
public struct RegistryAccess: Sendable {
    public var credentials: RegistryCredentials?
    /// `http` or `https`; nil tries https, and on this machine http after it.
    public var scheme: String?
    /// Certificates trusted instead of the system's.
    public var certificateAuthorityFile: String?
    /// The credentials are not from settings but from `config.json`.
    public var usesDockerConfiguration = false

    public init(
        credentials: RegistryCredentials? = nil, scheme: String? = nil, certificateAuthorityFile: String? = nil
    ) {
        self.credentials = credentials
        self.scheme = scheme
        self.certificateAuthorityFile = certificateAuthorityFile
    }
}

/// One request to a registry.
struct RegistryCall {
    var method = "GET"
    /// From `/v2/` on, or a whole URL that the registry gave.
    var path: String
    var headers: [(name: String, value: String)] = []
    var body: [UInt8] = []
    var upload: HTTPUpload?
    var scope: String
    var image: String
    var step: String
    /// Bytes of a body that no receiver takes; more is an error.
    var byteLimit = 16 << 20
    /// Whether a failed attempt may be repeated.
    var isRepeatable = true
    /// How far a body that is taken piece by piece has come, and its digest; the next attempt asks for the rest.
    var position: (@EventLoop () -> (byteCount: Int, digest: Digest))?
    var receiver: (any HTTPBodyReceiver)?
    var started: (@EventLoop (HTTPTransfer) -> Void)?
}

/// Talks to one registry within a deadline.
@EventLoop
public final class RegistryClient {
    /// Host and port.
    public let host: String
    let http: HTTPClient
    let access: RegistryAccess
    let log: EventLog
    private let deadline: UInt64
    private var scheme: String
    private var basicIndex = 0
    private var isBasic: Bool
    private var tokens: [String: (value: String, expires: UInt64)] = [:]
    private var warned: Set<String> = []

    /// How long a blob's bytes may stay away, under 1000 a second, before the connection is given up.
    static let stallTimeout = Duration.seconds(30)
    /// Bytes of a token service's answer.
    static let tokenByteLimit = 1 << 20

    /// - Parameters:
    ///   - host: host and port.
    ///   - deadline: on the monotonic clock, in nanoseconds; nothing is waited for past it.
    public init(host: String, access: RegistryAccess, http: HTTPClient, log: EventLog, deadline: UInt64) {
        self.host = host
        self.access = access
        self.http = http
        self.log = log
        self.deadline = deadline
        scheme = access.scheme ?? "https"
        // Sparing a round trip: the user has named this registry, so it may know who asks.
        isBasic = access.credentials.map { !$0.passwords.isEmpty } ?? false
    }

    /// What is left of the time.
    var remaining: Duration {
        let now = monotonicNanoseconds()
        return now >= deadline ? .zero : .nanoseconds(Int64(min(deadline - now, UInt64(Int64.max))))
    }

    func timeLimit(_ image: String, _ step: String, _ last: String = "") -> ImageError {
        ImageError(
            .timeLimit, image: image, step: step, "the time limit is over" + (last.isEmpty ? "" : "; last: \(last)"),
            remedy: "raise WEBSITES_CONTAINER_START_TIME_LIMIT (seconds, up to 1800), or make the image smaller")
    }

    /// Sends a request, signing in when asked to and trying again when that may help.
    ///
    /// - Returns: an answer with a status below 400, or 416.
    func perform(_ call: RegistryCall) async throws(ImageError) -> HTTPClientResponse {
        var retries = RetryPolicy()
        var signIns = 0
        var position = call.position?().byteCount ?? 0
        while true {
            guard remaining > .zero else { throw timeLimit(call.image, call.step) }
            let failure: ImageError
            var asked: Duration?
            switch await send(call) {
            case .success(let response):
                show(response)
                if response.status < 400 || response.status == 416 { return response }
                if response.status == 401, signIns < 3 {
                    signIns += 1
                    if try await signIn(response, call) { continue }
                }
                failure = self.failure(response, call)
                asked = response.header("retry-after").flatMap { parseRetryAfter($0) }
                guard [408, 425, 429, 500, 502, 503, 504].contains(response.status) else { throw failure }
            case .failure(let error):
                if error.isNotTLS, access.scheme == nil, scheme == "https", isLoopback(host) {
                    scheme = "http"
                    continue
                }
                if error.status == 416, let position = call.position?() {
                    // Some registries promise a body with it that does not come.
                    throw ImageError(
                        .verification, image: call.image, step: call.step,
                        "ends after \(position.byteCount) bytes, and the manifest promised more",
                        remedy: "the image was pushed wrong, or the registry has lost a part of it")
                }
                failure = transportFailure(error, call)
                guard error.isTransient else { throw failure }
                // The time of a request is what was left of the whole.
                if error.number == 28, remaining < .milliseconds(100) {
                    throw timeLimit(call.image, call.step, error.reason)
                }
            }
            if let now = call.position?().byteCount, now > position {
                position = now
                retries.progressed()
            }
            guard call.isRepeatable, let delay = retries.nextDelay(asked: asked) else { throw failure }
            try await wait(delay, asked: asked != nil, failure)
        }
    }

    /// Waits before another attempt, or fails at once when the wait would outlast the time there is.
    func wait(_ delay: Duration, asked: Bool, _ failure: ImageError) async throws(ImageError) {
        guard delay < remaining else {
            if asked {
                throw ImageError(
                    .busy, image: failure.image, step: failure.step,
                    "\(failure.reason); the registry asks to wait \(Int(delay.inSeconds)) s, and \(Int(remaining.inSeconds)) s are left",
                    remedy: "try again later")
            }
            throw ImageError(
                failure.kind, image: failure.image, step: failure.step,
                "\(failure.reason); the time limit leaves no time to try again", remedy: failure.remedy)
        }
        log.log(
            .debug, "registry: trying again",
            [("reason", .text(failure.reason)), ("after_ms", .integer(Int(delay.inSeconds * 1000)))])
        await sleep(for: delay)
    }

    private func send(_ call: RegistryCall) async -> Result<HTTPClientResponse, HTTPClientError> {
        var headers = call.headers
        let url = call.path.hasPrefix("/") ? "\(scheme)://\(host)\(call.path)" : call.path
        // A whole URL may lead elsewhere; what we are goes to this registry only.
        if hostOf(url) == hostOf(host) || call.path.hasPrefix("/"), let value = authorization(call.scope) {
            headers.append(("Authorization", value))
        }
        if let (byteCount, digest) = call.position?(), byteCount > 0 {
            headers.append(("Range", "bytes=\(byteCount)-"))
            headers.append(("If-Range", "\"\(digest)\""))
        }
        headers.append(("Accept-Encoding", "identity"))
        headers.append(("User-Agent", "andiron"))
        headers.append(("X-Meta-Source-Client", "azure/functions"))
        var request = HTTPClientRequest(
            method: call.method, url: url, headers: headers, body: call.body, timeout: remaining)
        request.upload = call.upload
        request.followsRedirects = call.method == "GET" || call.method == "HEAD"
        request.certificateAuthorityFile = access.certificateAuthorityFile
        request.connectTimeout = min(.seconds(15), max(remaining, .milliseconds(1)))
        request.stallTimeout = Self.stallTimeout
        request.responseByteLimit = call.byteLimit
        do throws(HTTPClientError) {
            return .success(try await http.send(request, receiver: call.receiver, started: call.started))
        } catch {
            return .failure(error)
        }
    }

    private func authorization(_ scope: String) -> String? {
        if let token = tokens[scope], token.expires > monotonicNanoseconds() { return "Bearer \(token.value)" }
        guard isBasic, let credentials = access.credentials, basicIndex < credentials.passwords.count,
            scheme == "https" || isLoopback(host) || access.scheme == "http"
        else { return nil }
        return basic(credentials.username, credentials.passwords[basicIndex])
    }

    private func basic(_ name: String, _ password: String) -> String {
        "Basic " + encodeBase64(Array("\(name):\(password)".utf8))
    }

    /// Does what a 401 asks for.
    ///
    /// - Returns: whether the request may be sent again.
    private func signIn(_ response: HTTPClientResponse, _ call: RegistryCall) async throws(ImageError) -> Bool {
        // A challenge of another host, after a redirect, is none of ours to answer.
        guard hostOf(response.url) == host else { return false }
        let challenges = response.headers.filter { $0.name == "www-authenticate" }.compactMap {
            RegistryChallenge($0.value)
        }
        if let bearer = challenges.first(where: { $0.scheme == "bearer" }) {
            if isBasic { isBasic = false }
            if tokens[call.scope] != nil {
                tokens[call.scope] = nil
                // The token was fresh and is not enough: asking again gives the same one.
                if bearer["error"] == "insufficient_scope" { return false }
            }
            return try await fetchToken(bearer, call)
        }
        guard challenges.contains(where: { $0.scheme == "basic" }), let credentials = access.credentials else {
            return false
        }
        if isBasic { basicIndex += 1 }
        isBasic = true
        return basicIndex < credentials.passwords.count
    }

    private func fetchToken(_ challenge: RegistryChallenge, _ call: RegistryCall) async throws(ImageError) -> Bool {
        guard let realm = challenge["realm"] else { return false }
        let realmHost = hostOf(realm)
        let isSafe = realm.hasPrefix("https://") || isLoopback(realmHost)
        // What this request needs, and what the next ones of its kind will.
        var scopes = call.scope.split(separator: " ").map(String.init)
        for scope in (challenge["scope"] ?? "").split(separator: " ").map(String.init) where !scopes.contains(scope) {
            scopes.append(scope)
        }
        let passwords = isSafe ? access.credentials?.passwords ?? [] : []
        var answer: HTTPClientResponse?
        if isSafe, let token = access.credentials?.identityToken {
            answer = try await tokenByForm(
                realm, challenge, scopes, call, ["grant_type=refresh_token", "refresh_token=\(percentEncode(token))"])
        }
        for password in passwords where answer?.status != 200 {
            let name = access.credentials?.username ?? ""
            answer = try await tokenByQuery(realm, challenge, scopes, call, authorization: basic(name, password), name)
            if let status = answer?.status, status == 404 || status == 405 {
                answer = try await tokenByForm(
                    realm, challenge, scopes, call,
                    ["grant_type=password", "username=\(percentEncode(name))", "password=\(percentEncode(password))"])
            }
        }
        if answer == nil {
            answer = try await tokenByQuery(realm, challenge, scopes, call, authorization: nil, nil)
        }
        guard let answer else { return false }
        guard answer.status == 200 else { throw tokenFailure(answer, realm, call) }
        let document = try? JSONParser.parse(answer.body)
        guard let token = document?["token"]?.string ?? document?["access_token"]?.string, !token.isEmpty else {
            throw ImageError(
                .protocolViolation, image: call.image, step: "sign in",
                "\(realmHost) answered 200 without a token", remedy: "is it the registry's token service?")
        }
        let life = max(5, (document?["expires_in"]?.integer ?? 60) - 10)
        tokens[call.scope] = (token, monotonicNanoseconds() + UInt64(life) * 1_000_000_000)
        return true
    }

    private func tokenByQuery(
        _ realm: String, _ challenge: RegistryChallenge, _ scopes: [String], _ call: RegistryCall,
        authorization: String?, _ account: String?
    ) async throws(ImageError) -> HTTPClientResponse {
        var query = scopes.map { "scope=\(percentEncode($0))" }
        if let service = challenge["service"] { query.insert("service=\(percentEncode(service))", at: 0) }
        if let account { query.append("account=\(percentEncode(account))") }
        let url = realm + (realm.contains("?") ? "&" : "?") + query.joined(separator: "&")
        let headers = authorization.map { [(name: "Authorization", value: $0)] } ?? []
        return try await ask(HTTPClientRequest(url: url, headers: headers), call)
    }

    private func tokenByForm(
        _ realm: String, _ challenge: RegistryChallenge, _ scopes: [String], _ call: RegistryCall, _ grant: [String]
    ) async throws(ImageError) -> HTTPClientResponse {
        var form = grant + ["client_id=andiron", "scope=\(percentEncode(scopes.joined(separator: " ")))"]
        if let service = challenge["service"] { form.append("service=\(percentEncode(service))") }
        return try await ask(
            HTTPClientRequest(
                method: "POST", url: realm, headers: [("Content-Type", "application/x-www-form-urlencoded")],
                body: Array(form.joined(separator: "&").utf8)), call)
    }

    /// One exchange with a token service, tried again as those with the registry are.
    private func ask(_ request: HTTPClientRequest, _ call: RegistryCall) async throws(ImageError) -> HTTPClientResponse
    {
        var request = request
        request.certificateAuthorityFile = access.certificateAuthorityFile
        request.responseByteLimit = Self.tokenByteLimit
        var retries = RetryPolicy()
        while true {
            guard remaining > .zero else { throw timeLimit(call.image, "sign in") }
            request.timeout = min(remaining, .seconds(30))
            let failure: ImageError
            do throws(HTTPClientError) {
                let response = try await http.send(request)
                guard [429, 500, 502, 503, 504].contains(response.status) else { return response }
                failure = tokenFailure(response, request.url, call)
            } catch {
                var step = call
                step.step = "sign in"
                step.receiver = nil
                step.byteLimit = Self.tokenByteLimit
                failure = transportFailure(error, step, at: hostOf(request.url))
                guard error.isTransient else { throw failure }
            }
            guard let delay = retries.nextDelay(asked: nil) else { throw failure }
            try await wait(delay, asked: false, failure)
        }
    }

    /// A registry's `Warning` header is shown once.
    private func show(_ response: HTTPClientResponse) {
        for header in response.headers where header.name == "warning" && header.value.hasPrefix("299 ") {
            guard warned.count < 20, warned.insert(header.value).inserted else { continue }
            log.log(.warning, "the registry \(host) says: \(header.value.dropFirst(4))")
        }
    }
}
