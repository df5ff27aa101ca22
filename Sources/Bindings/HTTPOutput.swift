/// The HTTP output binding: an invocation's outcome as a response.
internal import Diagnostics
public import EventLoops
public import HTTPMessages
public import Invocations
internal import JSONText

/// Builds responses of function routes.
@EventLoop
public final class HTTPOutput {
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
                response.fields.reserve(Self.usualHeadByteCount)
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

    private static let usualHeadByteCount = 384
    private static let json = Array("Content-Type: application/json\r\n".utf8)

    private func contentTypeLine(_ type: String) -> [UInt8] {
        if type == "application/json" { return Self.json }
        var fields = HTTPFields()
        fields.add("Content-Type", type)
        return fields.bytes
    }
}

// MARK: Timing

extension Stage {
    /// What stands before its time: the separator and ``Stage/name``, as a literal that needs no storage.
    fileprivate var timingStart: StaticString {
        switch self {
        case .accept: ", accept;dur="
        case .auth: ", auth;dur="
        case .bind: ", bind;dur="
        case .cacheLookup: ", cache_lookup;dur="
        case .workerWait: ", worker_wait;dur="
        case .score: ", score;dur="
        case .cacheStore: ", cache_store;dur="
        case .output: ", output;dur="
        }
    }
}

/// Appends `X-Cache` and `Server-Timing` (milliseconds; cold-start phases when it waited for a worker).
@EventLoop
public func appendTiming(_ invocation: Invocation, to fields: inout HTTPFields) {
    let times = invocation.stages
    fields.appendLines { bytes in
        // One append of a line put together on the stack costs a fifth of appending its hundred pieces.
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: ByteCursor.capacity) { memory in
            var line = ByteCursor(memory: memory)
            switch invocation.cache {
            case .hit, .stale:
                line.append(invocation.cache == .hit ? "X-Cache: HIT\r\nAge: " : "X-Cache: STALE\r\nAge: ")
                line.append(seconds: invocation.cacheAge)
            case .miss: line.append("X-Cache: MISS\r\n" as StaticString)
            case .bypass: line.append("X-Cache: BYPASS\r\n" as StaticString)
            case nil: break
            }
            line.append("Server-Timing: total;dur=" as StaticString)
            line.append(milliseconds: times.total)
            times.forEachStage { stage, nanoseconds in
                line.append(stage.timingStart)
                line.append(milliseconds: nanoseconds)
            }
            for phase in invocation.coldStart {
                line.append(Array(", cold_\(phase.name);dur=".utf8))
                line.append(milliseconds: UInt64(phase.milliseconds * 1e6))
            }
            line.append(0x0D)
            line.append(0x0A)
            bytes.append(contentsOf: line.written)
        }
    }
}

/// Writes bytes one after the other into borrowed memory; what does not fit is dropped.
struct ByteCursor {
    /// Room for both lines: nine stages and four cold-start phases of at most 45 bytes.
    static let capacity = 768
    private let memory: UnsafeMutableBufferPointer<UInt8>
    private var count = 0

    init(memory: UnsafeMutableBufferPointer<UInt8>) { self.memory = memory }

    var written: UnsafeBufferPointer<UInt8> { UnsafeBufferPointer(rebasing: memory[..<count]) }

    @inline(__always)
    mutating func append(_ byte: UInt8) {
        guard count < memory.count else { return }
        memory[count] = byte
        count += 1
    }

    @inline(__always)
    mutating func append(_ bytes: [UInt8]) {
        guard count + bytes.count <= memory.count, let base = memory.baseAddress else { return }
        bytes.withUnsafeBufferPointer { source in
            guard let start = source.baseAddress else { return }
            (base + count).initialize(from: start, count: source.count)
        }
        count += bytes.count
    }

    @inline(__always)
    mutating func append(_ text: StaticString) {
        let length = text.utf8CodeUnitCount
        guard count + length <= memory.count, let base = memory.baseAddress else { return }
        (base + count).initialize(from: text.utf8Start, count: length)
        count += length
    }

    /// A whole number of seconds, and the end of the line.
    @inline(__always)
    mutating func append(seconds: Int) {
        if seconds < 10 {
            append(UInt8(truncatingIfNeeded: 48 + max(0, seconds)))
        } else {
            append(Array("\(seconds)".utf8))
        }
        append("\r\n" as StaticString)
    }

    /// Nanoseconds as milliseconds with six decimals.
    @inline(__always)
    mutating func append(milliseconds nanoseconds: UInt64) {
        let whole = nanoseconds / 1_000_000
        if whole < 10 {
            append(UInt8(truncatingIfNeeded: 48 + whole))
        } else {
            append(Array("\(whole)".utf8))
        }
        guard count + 7 <= memory.count, let base = memory.baseAddress else { return }
        // The guard above is the bounds check of these seven bytes.
        let decimals = base + count
        decimals[0] = UInt8(ascii: ".")
        var rest = UInt32(truncatingIfNeeded: nanoseconds % 1_000_000)
        for place in (1...6).reversed() {
            decimals[place] = UInt8(truncatingIfNeeded: 48 + rest % 10)
            rest /= 10
        }
        count += 7
    }
}
