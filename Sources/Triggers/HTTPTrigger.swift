/// The HTTP trigger: routes a request to a function, checks its key, starts an invocation.
///
/// Order of checks and status codes are the Functions host's (FunctionInvocationMiddleware): no route 404,
/// key 401, disabled 404, then the function runs.
public import Diagnostics
public import EventLoops
public import FunctionApps
public import HTTPMessages
public import HTTPServers
public import Invocations

/// A function as the trigger sees it.
public final class HTTPFunction: Sendable {
    public let metadata: FunctionMetadata
    public let http: HTTPTriggerMetadata

    public init(metadata: FunctionMetadata, http: HTTPTriggerMetadata) {
        self.metadata = metadata
        self.http = http
    }
}

/// What became of a request that had a route.
public enum HTTPTriggerResult {
    /// Answered without running anything.
    case refused(HTTPResponse)
    /// A function runs, or has run.
    case running(Invocation, Eventual<InvocationOutcome>)
}

/// Who callers are.
public enum CallerAuthentication {
    /// Everybody is an administrator, as under `func start`.
    case off
    /// By key.
    case keys(KeyStore)
}

/// The routes of one loaded app.
@EventLoop
public final class HTTPTrigger {
    private let functions: [HTTPFunction]
    private let table: RouteTable
    private let throttle: RequestThrottle?
    private let authentication: CallerAuthentication
    private let dispatcher: any InvocationDispatching
    private var random = RandomBytes()

    /// - Parameter functions: in the order their routes are tried.
    /// - Throws: for a prefix that makes a route impossible.
    public init(
        functions: [HTTPFunction], configuration: HTTPConfiguration, authentication: CallerAuthentication,
        dispatcher: any InvocationDispatching
    ) throws(RouteTemplateError) {
        self.functions = functions
        self.authentication = authentication
        self.dispatcher = dispatcher
        let isThrottled = configuration.maxConcurrentRequests != nil || configuration.maxOutstandingRequests != nil
        throttle =
            isThrottled
            ? RequestThrottle(
                outstanding: configuration.maxOutstandingRequests, concurrent: configuration.maxConcurrentRequests)
            : nil
        var routes: [Route] = []
        for (index, function) in functions.enumerated() {
            let text = Self.template(of: function, prefix: configuration.routePrefix)
            routes.append(Route(function: index, template: try RouteTemplate(text), methods: function.http.methods))
        }
        table = RouteTable(routes)
    }

    /// The whole template of a function: the prefix and its route.
    public static func template(of function: HTTPFunction, prefix: String) -> String {
        let route = function.http.route ?? function.metadata.name
        return prefix.isEmpty ? route : route.isEmpty ? prefix : prefix + "/" + route
    }

    /// Routes a request and runs its function; nil when no function has such a route.
    public func handle(_ request: HTTPRequest) -> HTTPTriggerResult? {
        var stages = StageTimes(entering: .accept, at: request.receivedAt)
        guard let (index, parameters) = table.match(request.head) else { return nil }
        let function = functions[index]
        stages.enter(.auth, at: monotonicNanoseconds())
        if let refusal = refusal(request, function) { return .refused(refusal) }
        stages.enter(.bind, at: monotonicNanoseconds())
        let invocation = Invocation(
            id: InvocationID(from: &random), functionName: function.metadata.name,
            event: TriggerEvent(
                trigger: "http", body: request.body, head: request.head, routeParameters: parameters),
            stages: stages)
        guard let throttle else { return .running(invocation, dispatcher.dispatch(invocation)) }
        guard throttle.admit() else {
            var response = HTTPResponse(status: 429)
            response.fields.add("X-FUNCTION-SCALEOUT", "1")
            return .refused(response)
        }
        let outcome = Eventual.awaiting { [dispatcher] in
            await throttle.turn()
            defer { throttle.leave() }
            return await dispatcher.dispatch(invocation).value()
        }
        return .running(invocation, outcome)
    }

    /// A new name for an invocation that does not come by a route.
    public func newInvocationID() -> InvocationID { InvocationID(from: &random) }

    private func refusal(_ request: HTTPRequest, _ function: HTTPFunction) -> HTTPResponse? {
        guard case .keys(let store) = authentication else { return nil }
        let needed = function.http.authLevel
        if needed == .anonymous, !function.metadata.isDisabled { return nil }
        guard let level = callerLevel(request.head, store, function: function.metadata.name) else {
            return needed == .anonymous ? HTTPResponse(status: 404) : HTTPResponse(status: 401)
        }
        guard Self.satisfies(level, needed) else { return HTTPResponse(status: 401) }
        return function.metadata.isDisabled && level != .admin ? HTTPResponse(status: 404) : nil
    }

    /// Whether a caller of `level` may run what needs `needed`: a system key opens no function.
    static func satisfies(_ level: AuthorizationLevel, _ needed: AuthorizationLevel) -> Bool {
        level == .admin || level == needed || needed == .anonymous
    }
}

/// The level of a request's key; nil without a valid one. The header wins over the query.
@EventLoop
public func callerLevel(_ head: RequestHead, _ store: KeyStore, function: String) -> AuthorizationLevel? {
    let presented =
        head.value("x-functions-key")
        ?? PercentCoding.query(head.query).first { $0.name.lowercased() == "code" }?.value
    guard let presented, !presented.isEmpty else { return nil }
    // A store that cannot be read opens nothing.
    return try? store.level(of: presented, function: function)
}
