/// One run of a function, from its trigger's event to its outcome.
public import Diagnostics
public import EventLoops
public import HTTPMessages

/// What started an invocation.
public struct TriggerEvent: Sendable {
    /// The kind of trigger, in the words of `faas.trigger`: `http`, `blob`, `queue`, `admin`.
    public var trigger: String
    /// The trigger's value: a request body, a blob, a message.
    public var body: [UInt8]
    /// The request's head, for HTTP.
    public var head: RequestHead?
    /// Route parameters by name; nil values are optional parameters that were absent.
    public var routeParameters: [(name: String, value: String?)]
    /// What binding expressions can name; for HTTP it is made from the request when it is asked for.
    public var data: BindingData
    /// Where it came from, for people: a blob's path, a message's queue; nil for HTTP.
    public var source: String?
    /// The invocation that caused it, when one of this host did.
    public var parent: String?
    /// How often this event has been tried, this time included.
    public var attempt = 1

    public init(
        trigger: String, body: [UInt8], head: RequestHead? = nil,
        routeParameters: [(name: String, value: String?)] = [], data: BindingData = BindingData()
    ) {
        self.trigger = trigger
        self.body = body
        self.head = head
        self.routeParameters = routeParameters
        self.data = data
    }
}

/// One invocation on its way; touched by the loop only.
@EventLoop
public final class Invocation {
    public let id: InvocationID
    public let functionName: String
    public var event: TriggerEvent
    public var stages: StageTimes
    /// What the cache did; nil when no cache was asked.
    public var cache: CacheResult?
    /// Seconds since a result from the cache was computed.
    public var cacheAge = 0
    /// Phases and milliseconds of the cold start it waited for; empty when it met a warm worker.
    public var coldStart: [(name: String, milliseconds: Double)] = []
    /// What binding expressions can name, once it has been asked for.
    public var bindingData: BindingData?
    /// Values of input bindings by name; nil values are inputs that were not there.
    public var inputs: [(name: String, value: [UInt8]?)] = []
    /// Records what became of the trigger's event, when outputs are written and before the outcome is reported: a
    /// receipt, a message completed or abandoned.
    public var settlement: (@EventLoop (InvocationOutcome) -> Eventual<Void>)?

    public init(id: InvocationID, functionName: String, event: TriggerEvent, stages: StageTimes) {
        self.id = id
        self.functionName = functionName
        self.event = event
        self.stages = stages
    }

    /// Ends the running stage and begins `stage`.
    @inline(__always)
    public func enter(_ stage: Stage) { stages.enter(stage, at: monotonicNanoseconds()) }
}

/// What a scorer answered.
public struct ScoringResponse: Sendable {
    /// The HTTP status the scoring server would give.
    public var status: Int
    /// The content type; nil when the script gave its own or there is none.
    public var contentType: String?
    /// Further headers, as field lines.
    public var fields: HTTPFields
    public var body: [UInt8]
    /// What `x-ms-run-function-failed` says.
    public var runFunctionFailed: Bool
    /// How long the script's `run` took, in nanoseconds; 0 when it did not run.
    public var runNanoseconds: UInt64
    /// The failure to report on function routes, when this is one.
    public var failure: InvocationFailure?

    public init(
        status: Int = 200, contentType: String? = "application/json", fields: HTTPFields = HTTPFields(),
        body: [UInt8] = [], runFunctionFailed: Bool = false, runNanoseconds: UInt64 = 0,
        failure: InvocationFailure? = nil
    ) {
        self.status = status
        self.contentType = contentType
        self.fields = fields
        self.body = body
        self.runFunctionFailed = runFunctionFailed
        self.runNanoseconds = runNanoseconds
        self.failure = failure
    }
}

/// Why an invocation failed.
public final class InvocationFailure: HostError {
    public let code: String
    public let fault: Fault
    public let message: String
    public let remedy: String?
    /// The user's traceback or other detail, for the log and the developer.
    public let detail: String?
    /// The status an HTTP caller gets.
    public let status: Int
    /// Seconds after which trying again makes sense.
    public let retryAfterSeconds: Int?

    public init(
        code: String, fault: Fault, message: String, remedy: String? = nil, detail: String? = nil, status: Int = 500,
        retryAfterSeconds: Int? = nil
    ) {
        self.code = code
        self.fault = fault
        self.message = message
        self.remedy = remedy
        self.detail = detail
        self.status = status
        self.retryAfterSeconds = retryAfterSeconds
    }
}

/// How an invocation ended.
public enum InvocationOutcome: Sendable {
    case completed(ScoringResponse)
    case failed(InvocationFailure)
}

/// What of a request a function's result depends on.
public enum InputKind: Sendable {
    /// The body's bytes.
    case bytes
    /// The body's JSON value, however it is written.
    case json
    /// Method, path, query and body.
    case request
    /// Headers too: such a result is never shared.
    case headers
}

/// What two requests must have in common to have the same result.
public struct InputIdentity: Sendable {
    public let kind: InputKind
    /// Digest of the code and the model.
    public let version: SHA256Digest

    public init(kind: InputKind, version: SHA256Digest) {
        self.kind = kind
        self.version = version
    }
}

/// Computes a function's result. Implementations: the entry script in worker processes, the echo.
@EventLoop
public protocol Scorer: AnyObject {
    /// What results depend on; nil while the script is not known yet.
    var identity: InputIdentity? { get }
    /// Waits until ``identity`` is known, and notes a cold start on the invocation.
    func prepare(_ invocation: Invocation) async throws(InvocationFailure) -> InputIdentity
    /// Answers one invocation; marks the stages `workerWait` and `score` on it.
    func score(_ invocation: Invocation) -> Eventual<InvocationOutcome>
}

/// Runs an invocation through cache, scorer and outputs.
@EventLoop
public protocol InvocationDispatching: AnyObject {
    func dispatch(_ invocation: Invocation) -> Eventual<InvocationOutcome>
}
