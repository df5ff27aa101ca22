/// The frames between the host and a worker process, over the socket the worker has as descriptor 3.
///
/// Every frame, little-endian:
///
///     u32 length   of all that follows
///     u8  kind
///     u32 request  the request it is about, or 0
///     …   payload  length - 5 bytes
///
/// Host to worker:
///
///     1 invoke       the input, for run(); method POST, no headers asked for
///     2 invoke http  u32 length of a JSON head {method, path, query, headers: [[name, value]]}, the head, the body
///     3 stop         finish and exit
///
/// Worker to host:
///
///     16 ready       JSON {mode, wantsHeaders, arguments, python, import_ms, init_ms, swagger: {version: text}}
///     17 init failed JSON {message, traceback, missing?, tree?}; the worker exits with status 3 after it
///     18 result      u16 status, u8 flags (1: run failed), u64 nanoseconds in run(), u16 length of the content
///                    type, u32 length of the header lines, u32 length of the failure (JSON {code, message,
///                    traceback?, remedy?}), then these three, then the body
///     19 log         u8 level (0 trace … 5 critical), the line
///     20 phase       the cold-start phase that begins: `import`, `init`
///
/// Replies come in the order of the requests. Both sides send many frames at once where they can. The other
/// end is Python/andiron_worker.py.
internal import Diagnostics
internal import Glibc
internal import HTTPMessages

/// A frame the host sends.
enum WorkerRequestKind: UInt8 {
    case invoke = 1
    case invokeHTTP = 2
    case stop = 3
}

/// A frame a worker sends.
enum WorkerFrame {
    case ready([UInt8])
    case initFailed([UInt8])
    case result(request: UInt32, WorkerResult)
    case log(request: UInt32, level: EventLevel, line: String)
    case phase(String)
}

/// What run() came to.
public struct WorkerResult: Sendable {
    public var status: Int
    public var runFailed: Bool
    public var runNanoseconds: UInt64
    public var contentType: String
    /// Header lines, each ended by CR LF.
    public var headerLines: [UInt8]
    /// JSON about the failure; empty when there was none.
    public var failure: [UInt8]
    public var body: [UInt8]
}

/// A worker sent something that is no frame: the connection cannot be trusted any more.
struct WorkerFrameError: Error, Equatable {
    let reason: String
}

/// Turns bytes into frames, in any pieces.
struct WorkerFrameReader {
    /// Bytes one frame may have.
    static let frameByteLimit = 512 << 20
    private static let headerLength = 9

    private var pending: [UInt8] = []

    /// Takes bytes and calls `deliver` for each complete frame.
    mutating func feed(
        _ bytes: UnsafeRawBufferPointer, deliver: (WorkerFrame) -> Void
    ) throws(WorkerFrameError) {
        if pending.isEmpty {
            let used = try Self.parse(bytes, deliver)
            if used < bytes.count { pending.append(contentsOf: bytes[used...]) }
            return
        }
        pending.append(contentsOf: bytes)
        guard let total = Self.frameLength(pending), pending.count >= total else {
            if pending.count >= Self.headerLength { _ = try Self.parse(pending) { _ in } }
            return
        }
        let whole = pending
        pending = []
        let used = try Self.parse(whole, deliver)
        if used < whole.count { pending = Array(whole[used...]) }
    }

    private static func frameLength(_ bytes: [UInt8]) -> Int? {
        guard bytes.count >= headerLength else { return nil }
        return 4 + bytes.withUnsafeBytes { Int($0.loadUnaligned(as: UInt32.self)) }
    }

    /// `withUnsafeBytes` passes no typed errors, so the outcome travels as a value.
    private static func parse(_ bytes: [UInt8], _ deliver: (WorkerFrame) -> Void) throws(WorkerFrameError) -> Int {
        try bytes.withUnsafeBytes { memory -> Result<Int, WorkerFrameError> in
            do throws(WorkerFrameError) {
                return .success(try parse(memory, deliver))
            } catch {
                return .failure(error)
            }
        }.get()
    }

    private static func header(
        _ bytes: UnsafeRawBufferPointer, at offset: Int
    ) throws(WorkerFrameError) -> (length: Int, kind: UInt8, request: UInt32) {
        let length = Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        let kind = bytes[offset + 4]
        guard length >= 5, length <= frameByteLimit, (16...20).contains(kind) else {
            throw WorkerFrameError(reason: "a frame of kind \(kind) and length \(length)")
        }
        return (length, kind, bytes.loadUnaligned(fromByteOffset: offset + 5, as: UInt32.self))
    }

    private static func parse(
        _ bytes: UnsafeRawBufferPointer, _ deliver: (WorkerFrame) -> Void
    ) throws(WorkerFrameError) -> Int {
        var offset = 0
        while bytes.count - offset >= headerLength {
            let (length, kind, request) = try header(bytes, at: offset)
            guard bytes.count - offset >= 4 + length else { break }
            let payload = UnsafeRawBufferPointer(rebasing: bytes[(offset + headerLength)..<(offset + 4 + length)])
            deliver(try frame(kind, request, payload))
            offset += 4 + length
        }
        return offset
    }

    private static func frame(
        _ kind: UInt8, _ request: UInt32, _ payload: UnsafeRawBufferPointer
    ) throws(WorkerFrameError) -> WorkerFrame {
        switch kind {
        case 16: return .ready(Array(payload))
        case 17: return .initFailed(Array(payload))
        case 18: return .result(request: request, try result(payload))
        case 19:
            let level = payload.first.flatMap { EventLevel(rawValue: Int($0)) } ?? .information
            return .log(request: request, level: level, line: String(decoding: payload.dropFirst(), as: UTF8.self))
        default: return .phase(String(decoding: payload, as: UTF8.self))
        }
    }

    private static let resultHeadLength = 21

    private static func result(_ payload: UnsafeRawBufferPointer) throws(WorkerFrameError) -> WorkerResult {
        guard payload.count >= resultHeadLength else {
            throw WorkerFrameError(reason: "a result of \(payload.count) bytes")
        }
        let typeLength = Int(payload.loadUnaligned(fromByteOffset: 11, as: UInt16.self))
        let headerLength = Int(payload.loadUnaligned(fromByteOffset: 13, as: UInt32.self))
        let failureLength = Int(payload.loadUnaligned(fromByteOffset: 17, as: UInt32.self))
        let bodyStart = resultHeadLength + typeLength + headerLength + failureLength
        guard bodyStart <= payload.count else { throw WorkerFrameError(reason: "a result whose parts exceed it") }
        let headersStart = resultHeadLength + typeLength
        let failureStart = headersStart + headerLength
        return WorkerResult(
            status: Int(payload.loadUnaligned(fromByteOffset: 0, as: UInt16.self)), runFailed: payload[2] & 1 != 0,
            runNanoseconds: payload.loadUnaligned(fromByteOffset: 3, as: UInt64.self),
            contentType: contentType(UnsafeRawBufferPointer(rebasing: payload[resultHeadLength..<headersStart])),
            headerLines: Array(payload[headersStart..<failureStart]), failure: Array(payload[failureStart..<bodyStart]),
            body: Array(payload[bodyStart...]))
    }
}

/// The usual type is a literal, which needs no memory of its own.
private func contentType(_ bytes: UnsafeRawBufferPointer) -> String {
    let usual: StaticString = "application/json"
    guard let start = bytes.baseAddress else { return "" }
    let isUsual = bytes.count == usual.utf8CodeUnitCount && memcmp(start, usual.utf8Start, bytes.count) == 0
    return isUsual ? "application/json" : String(decoding: bytes, as: UTF8.self)
}

/// The header of a frame the host sends; its payload follows.
func appendFrameHeader(_ kind: WorkerRequestKind, request: UInt32, payloadLength: Int, to bytes: inout [UInt8]) {
    let length = UInt32(truncatingIfNeeded: payloadLength + 5)
    bytes.append(contentsOf: [
        UInt8(truncatingIfNeeded: length), UInt8(truncatingIfNeeded: length >> 8),
        UInt8(truncatingIfNeeded: length >> 16), UInt8(truncatingIfNeeded: length >> 24), kind.rawValue,
        UInt8(truncatingIfNeeded: request), UInt8(truncatingIfNeeded: request >> 8),
        UInt8(truncatingIfNeeded: request >> 16), UInt8(truncatingIfNeeded: request >> 24),
    ])
}
