/// The HTTP output binding: an invocation's outcome as a response.
internal import Diagnostics
public import EventLoops
public import HTTPMessages
public import Invocations
internal import JSONText

/// Builds responses of function routes.
@EventLoop
public struct HTTPOutput {
    /// Gives failures the Functions host's empty body.
    public let isStrict: Bool
    /// Where a person finds the log.
    public let logPath: String

    public init(isStrict: Bool, logPath: String) {
        self.isStrict = isStrict
        self.logPath = logPath
    }

    /// The response for an outcome, with its timing.
    public func response(_ invocation: Invocation, _ outcome: InvocationOutcome) -> HTTPResponse {
        var response: HTTPResponse
        switch outcome {
        case .completed(let result):
            if let failure = result.failure {
                response = self.failure(failure, invocation)
            } else {
                response = HTTPResponse(status: result.status, body: result.body)
                if let type = result.contentType { response.fields.append(lines: contentTypeLine(type)) }
                response.fields.append(lines: result.fields.bytes)
            }
        case .failed(let failure): response = self.failure(failure, invocation)
        }
        appendTiming(invocation, to: &response.fields)
        return response
    }

    /// The body names what failed, the invocation, and where to read on.
    private func failure(_ failure: InvocationFailure, _ invocation: Invocation) -> HTTPResponse {
        var response = HTTPResponse(status: failure.status)
        if !isStrict {
            response.fields.append(lines: contentTypeLine("application/json"))
            response.body = jsonObject { writer in
                writer.name("error")
                writer.beginObject()
                writer.member("code", failure.code)
                writer.member("message", failure.message)
                if let detail = failure.detail { writer.member("detail", detail) }
                if let remedy = failure.remedy { writer.member("try", remedy) }
                writer.endObject()
                writer.member("function", invocation.functionName)
                writer.member("invocationId", "\(invocation.id)")
                writer.member("log", logPath)
            }
        }
        if let seconds = failure.retryAfterSeconds { response.fields.add("Retry-After", "\(seconds)") }
        return response
    }

    private static let json = Array("Content-Type: application/json\r\n".utf8)

    private func contentTypeLine(_ type: String) -> [UInt8] {
        if type == "application/json" { return Self.json }
        var fields = HTTPFields()
        fields.add("Content-Type", type)
        return fields.bytes
    }
}

// MARK: Timing

private let cacheLines: [CacheResult: [UInt8]] = [
    .hit: Array("X-Cache: HIT\r\n".utf8), .miss: Array("X-Cache: MISS\r\n".utf8), .bypass: Array("X-Cache: BYPASS\r\n".utf8),
]
private let timingStart = Array("Server-Timing: total;dur=".utf8)
private let stageStarts: [[UInt8]] = Stage.allCases.map { Array(", \($0.name);dur=".utf8) }

/// Appends `X-Cache` and `Server-Timing` (milliseconds; cold-start phases when it waited for a worker).
@EventLoop
public func appendTiming(_ invocation: Invocation, to fields: inout HTTPFields) {
    if let cache = invocation.cache, let line = cacheLines[cache] { fields.append(lines: line) }
    var line = timingStart
    line.reserveCapacity(256)
    appendMilliseconds(invocation.stages.total, to: &line)
    for stage in Stage.allCases where invocation.stages[stage] > 0 {
        line.append(contentsOf: stageStarts[stage.rawValue])
        appendMilliseconds(invocation.stages[stage], to: &line)
    }
    for phase in invocation.coldStart {
        line.append(contentsOf: ", cold_\(phase.name);dur=".utf8)
        appendMilliseconds(UInt64(phase.milliseconds * 1e6), to: &line)
    }
    line.append(0x0D)
    line.append(0x0A)
    fields.append(lines: line)
}

/// Nanoseconds as milliseconds with six decimals.
func appendMilliseconds(_ nanoseconds: UInt64, to bytes: inout [UInt8]) {
    appendDecimal(Int(nanoseconds / 1_000_000), to: &bytes)
    bytes.append(UInt8(ascii: "."))
    var rest = nanoseconds % 1_000_000
    var unit: UInt64 = 100_000
    while unit > 0 {
        bytes.append(UInt8(truncatingIfNeeded: 48 + rest / unit))
        rest %= unit
        unit /= 10
    }
}
