/// The responses of the Azure ML scoring server, for `/score`: its status codes, bodies and `x-ms-*` headers
/// (azureml-inference-server-http 1.5, observed).
internal import Diagnostics
internal import EventLoops
public import HTTPMessages
public import Invocations
internal import JSONText

/// The request's ids, checked.
public struct ScoringRequestIDs: Sendable {
    let request: String
    let client: String?
    let msRequest: String

    static let lengthLimit = 100

    /// - Parameter generated: the id to use when the client sent none.
    /// - Returns: nil with a 431 response when an id is too long.
    public static func read(_ head: RequestHead, generated: String) -> (ids: ScoringRequestIDs?, refusal: HTTPResponse?)
    {
        let request = head.value("x-request-id")
        let ms = head.value("x-ms-request-id")
        let client = head.value("x-ms-client-request-id")
        let message: String? =
            if request?.utf8.count ?? 0 > lengthLimit {
                "x-request-id must not exceed 100 characters"
            } else if max(ms?.utf8.count ?? 0, client?.utf8.count ?? 0) > lengthLimit {
                "x-ms-request-id and x-ms-client-request-id must not exceed 100 characters"
            } else {
                nil
            }
        if let message { return (nil, scoringMessage(431, message)) }
        let id = request ?? generated
        return (ScoringRequestIDs(request: id, client: client ?? ms, msRequest: ms ?? client ?? id), nil)
    }

    func append(to fields: inout HTTPFields) {
        fields.add("x-request-id", request)
        fields.add("x-ms-request-id", msRequest)
        if let client { fields.add("x-ms-client-request-id", client) }
        fields.append(lines: Self.version)
    }

    private static let version = Array("x-ms-server-version: azmlinfsrv/1.5.1\r\n".utf8)
}

/// The server's JSON message body.
public func scoringMessage(_ status: Int, _ message: String) -> HTTPResponse {
    var body = Array(#"{"message": "#.utf8)
    JSONWriter.quote(message.utf8, into: &body)
    body.append(UInt8(ascii: "}"))
    return .json(status, body)
}

/// The response for an outcome on `/score`.
@EventLoop
public func scoringServerResponse(
    _ invocation: Invocation, _ outcome: InvocationOutcome, ids: ScoringRequestIDs
) -> HTTPResponse {
    var response: HTTPResponse
    var failed = false
    switch outcome {
    case .completed(let result):
        response = HTTPResponse(status: result.status, body: result.body)
        if let type = result.contentType { response.fields.add("Content-Type", type) }
        response.fields.append(lines: result.fields.bytes)
        failed = result.runFunctionFailed
        if result.status < 400, invocation.cache != .hit {
            let microseconds = result.runNanoseconds / 1000
            let decimals = String(microseconds % 1000 + 1000).dropFirst()
            response.fields.add("x-ms-run-fn-exec-ms", "\(microseconds / 1000).\(decimals)")
        }
    case .failed(let failure):
        failed = true
        response = scoringMessage(
            failure.status,
            failure.code == "AN4003"
                ? failure.message : "An unexpected error occurred in scoring script. Check the logs for more info.")
        if let seconds = failure.retryAfterSeconds { response.fields.add("Retry-After", "\(seconds)") }
    }
    response.fields.add("x-ms-run-function-failed", failed ? "True" : "False")
    ids.append(to: &response.fields)
    appendTiming(invocation, to: &response.fields)
    return response
}
