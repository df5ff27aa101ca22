/// Parses request heads strictly: what RFC 9112 does not allow is refused, never repaired, so that no
/// proxy in front can see another request than we do.

/// Why a request was refused.
public struct HTTPParseError: Error, Equatable, Sendable {
    /// The status to answer with before closing the connection.
    public let status: Int
    /// What was wrong, in words.
    public let reason: String

    public init(_ status: Int, _ reason: String) {
        self.status = status
        self.reason = reason
    }
}

/// Limits on a request's head.
public struct HeadLimits: Sendable {
    /// Bytes of the whole head. Kestrel's default.
    public var headByteCount = 32768
    /// Bytes of the request line. Kestrel's default.
    public var requestLineByteCount = 8192
    /// Field lines. Kestrel's default.
    public var fieldCount = 100

    public init() {}
}

/// What a parse came to.
public enum HeadParseResult: Sendable {
    /// The head is not complete yet.
    case needsMore
    /// A head, and how many bytes it took.
    case complete(RequestHead, byteCount: Int)
    case failed(HTTPParseError)
}

/// The parser; it holds nothing between calls.
public enum RequestParser {
    /// Parses the head at the start of `bytes`.
    public static func parse(_ bytes: Span<UInt8>, limits: HeadLimits = HeadLimits()) -> HeadParseResult {
        do throws(HTTPParseError) {
            var state = HeadState(limits: limits)
            guard let end = try state.run(bytes) else {
                if bytes.count >= limits.headByteCount { throw HTTPParseError(431, "the request's head is too large") }
                return .needsMore
            }
            return .complete(try state.head(bytes, end: end), byteCount: end)
        } catch {
            return .failed(error)
        }
    }

    /// Whether `bytes` can hold the end of a head; a cheap test before parsing what trickled in.
    public static func mayBeComplete(_ bytes: Span<UInt8>, from start: Int) -> Bool {
        var index = max(0, start - 3)
        while index < bytes.count {
            if bytes[index] == 0x0A, index + 1 < bytes.count {
                if bytes[index + 1] == 0x0A { return true }
                if index + 2 < bytes.count, bytes[index + 1] == 0x0D, bytes[index + 2] == 0x0A { return true }
            }
            index += 1
        }
        return false
    }
}

private struct HeadState {
    let limits: HeadLimits
    var method = HeadSlice(start: 0, end: 0)
    var target = HeadSlice(start: 0, end: 0)
    var minorVersion = 1
    var fields: [FieldSlice] = []
    var contentLength: Int?
    var transferEncodings = 0
    var hosts = 0
    var closes = false
    var asksKeepAlive = false
    var expectsContinue = false

    init(limits: HeadLimits) {
        self.limits = limits
        fields.reserveCapacity(8)
    }

    /// The offset just past the head, or nil when bytes are missing.
    mutating func run(_ bytes: Span<UInt8>) throws(HTTPParseError) -> Int? {
        var position = 0
        // RFC 9112 §2.2: an empty line before the request line is ignored, once.
        if bytes.count > 0, bytes[0] == 0x0D {
            guard bytes.count > 1 else { return nil }
            if bytes[1] == 0x0A { position = 2 }
        }
        guard let lineEnd = try requestLine(bytes, from: position) else { return nil }
        position = lineEnd
        while true {
            guard position < bytes.count else { return nil }
            if bytes[position] == 0x0D {
                guard position + 1 < bytes.count else { return nil }
                guard bytes[position + 1] == 0x0A else {
                    throw HTTPParseError(400, "a carriage return without line feed")
                }
                position += 2
                break
            }
            guard let next = try fieldLine(bytes, from: position) else { return nil }
            position = next
        }
        guard position <= limits.headByteCount else { throw HTTPParseError(431, "the request's head is too large") }
        return position
    }

    private mutating func requestLine(_ bytes: Span<UInt8>, from start: Int) throws(HTTPParseError) -> Int? {
        var index = start
        while index < bytes.count, CharacterTables.isToken(bytes[index]) { index += 1 }
        guard index - start <= 32 else { throw HTTPParseError(501, "the method is too long") }
        guard index < bytes.count else { return nil }
        guard index > start, bytes[index] == 0x20 else { throw HTTPParseError(400, "the request line is malformed") }
        method = HeadSlice(start: UInt32(start), end: UInt32(index))
        index += 1
        let targetStart = index
        while index < bytes.count, bytes[index] > 0x20, bytes[index] < 0x7F { index += 1 }
        guard index - start <= limits.requestLineByteCount else {
            throw HTTPParseError(414, "the request line is too long")
        }
        guard index < bytes.count else { return nil }
        guard index > targetStart, bytes[index] == 0x20 else {
            throw HTTPParseError(400, "the request target holds a character that must be percent-encoded")
        }
        target = HeadSlice(start: UInt32(targetStart), end: UInt32(index))
        return try version(bytes, from: index + 1)
    }

    private mutating func version(_ bytes: Span<UInt8>, from start: Int) throws(HTTPParseError) -> Int? {
        let expected: StaticString = "HTTP/1."
        for offset in 0..<7 {
            guard start + offset < bytes.count else { return nil }
            let wanted = unsafe expected.utf8Start[offset]
            guard bytes[start + offset] == wanted else {
                throw HTTPParseError(offset == 5 ? 505 : 400, "the HTTP version is not 1.0 or 1.1")
            }
        }
        guard start + 9 < bytes.count else { return nil }
        switch bytes[start + 7] {
        case UInt8(ascii: "1"): minorVersion = 1
        case UInt8(ascii: "0"): minorVersion = 0
        default: throw HTTPParseError(505, "the HTTP version is not 1.0 or 1.1")
        }
        guard bytes[start + 8] == 0x0D, bytes[start + 9] == 0x0A else {
            throw HTTPParseError(400, "the request line does not end in CR LF")
        }
        return start + 10
    }

    private mutating func fieldLine(_ bytes: Span<UInt8>, from start: Int) throws(HTTPParseError) -> Int? {
        var index = start
        while index < bytes.count, CharacterTables.isToken(bytes[index]) { index += 1 }
        guard index < bytes.count else { return nil }
        guard index > start, bytes[index] == UInt8(ascii: ":") else {
            switch bytes[start] {
            case 0x20, 0x09: throw HTTPParseError(400, "a folded header line")
            case 0x0A: throw HTTPParseError(400, "a line feed without carriage return")
            default: throw HTTPParseError(400, "a header name holds a character that is not allowed")
            }
        }
        let name = HeadSlice(start: UInt32(start), end: UInt32(index))
        index += 1
        while index < bytes.count, bytes[index] == 0x20 || bytes[index] == 0x09 { index += 1 }
        let valueStart = index
        while true {
            index = bytes.firstControl(from: index)
            guard index < bytes.count, bytes[index] == 0x09 else { break }
            index += 1
        }
        guard index + 1 < bytes.count else {
            if index < bytes.count, bytes[index] != 0x0D {
                throw HTTPParseError(400, "a control character in a header")
            }
            return nil
        }
        guard bytes[index] == 0x0D, bytes[index + 1] == 0x0A else {
            throw HTTPParseError(400, "a header does not end in CR LF or holds a control character")
        }
        var valueEnd = index
        while valueEnd > valueStart, bytes[valueEnd - 1] == 0x20 || bytes[valueEnd - 1] == 0x09 { valueEnd -= 1 }
        guard fields.count < limits.fieldCount else {
            throw HTTPParseError(431, "more than \(limits.fieldCount) headers")
        }
        let field = FieldSlice(name: name, value: HeadSlice(start: UInt32(valueStart), end: UInt32(valueEnd)))
        fields.append(field)
        try interpret(field, bytes)
        return index + 2
    }

    /// Takes note of the fields that decide about framing and the connection.
    private mutating func interpret(_ field: FieldSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) {
        switch field.name.end - field.name.start {
        case 4 where matches(field.name, "host", bytes):
            hosts += 1
        case 6 where matches(field.name, "expect", bytes):
            guard matches(field.value, "100-continue", bytes) else {
                throw HTTPParseError(417, "an Expect other than 100-continue")
            }
            expectsContinue = true
        case 10 where matches(field.name, "connection", bytes):
            closes = closes || hasToken(field.value, "close", bytes)
            asksKeepAlive = asksKeepAlive || hasToken(field.value, "keep-alive", bytes)
        case 14 where matches(field.name, "content-length", bytes):
            guard contentLength == nil else { throw HTTPParseError(400, "two Content-Length headers") }
            contentLength = try decimal(field.value, bytes)
        case 17 where matches(field.name, "transfer-encoding", bytes):
            transferEncodings += 1
            guard matches(field.value, "chunked", bytes) else {
                throw HTTPParseError(501, "a transfer coding other than chunked")
            }
        default: break
        }
    }

    private func matches(_ slice: HeadSlice, _ word: StaticString, _ bytes: Span<UInt8>) -> Bool {
        guard Int(slice.end - slice.start) == word.utf8CodeUnitCount else { return false }
        for offset in 0..<word.utf8CodeUnitCount {
            let wanted = unsafe word.utf8Start[offset]
            if asciiLowercased(bytes[Int(slice.start) + offset]) != wanted { return false }
        }
        return true
    }

    private func hasToken(_ slice: HeadSlice, _ word: StaticString, _ bytes: Span<UInt8>) -> Bool {
        var start = Int(slice.start)
        let end = Int(slice.end)
        while start < end {
            var stop = start
            while stop < end, bytes[stop] != UInt8(ascii: ",") { stop += 1 }
            var last = stop
            while start < last, bytes[start] == 0x20 || bytes[start] == 0x09 { start += 1 }
            while last > start, bytes[last - 1] == 0x20 || bytes[last - 1] == 0x09 { last -= 1 }
            if matches(HeadSlice(start: UInt32(start), end: UInt32(last)), word, bytes) { return true }
            start = stop + 1
        }
        return false
    }

    private func decimal(_ slice: HeadSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) -> Int {
        var value = 0
        guard slice.end > slice.start, slice.end - slice.start <= 18 else {
            throw HTTPParseError(400, "the Content-Length is not a number")
        }
        for index in Int(slice.start)..<Int(slice.end) {
            let digit = bytes[index] &- UInt8(ascii: "0")
            guard digit < 10 else { throw HTTPParseError(400, "the Content-Length is not a number") }
            value = value * 10 + Int(digit)
        }
        return value
    }

    /// Checks what the fields say together, and builds the head.
    consuming func head(_ bytes: Span<UInt8>, end: Int) throws(HTTPParseError) -> RequestHead {
        if minorVersion == 1, hosts != 1 {
            throw HTTPParseError(400, hosts == 0 ? "the Host header is missing" : "two Host headers")
        }
        guard hosts <= 1 else { throw HTTPParseError(400, "two Host headers") }
        guard transferEncodings <= 1 else { throw HTTPParseError(400, "two Transfer-Encoding headers") }
        if transferEncodings == 1 {
            guard contentLength == nil else { throw HTTPParseError(400, "both Content-Length and Transfer-Encoding") }
            guard minorVersion == 1 else { throw HTTPParseError(400, "Transfer-Encoding in an HTTP/1.0 request") }
        }
        let (path, query) = try splitTarget(bytes)
        let framing: BodyFraming =
            transferEncodings == 1 ? .chunked : contentLength.map { $0 == 0 ? .none : .length($0) } ?? .none
        return RequestHead(
            bytes: copy(bytes, end), fields: fields, methodSlice: method, pathSlice: path, querySlice: query,
            minorVersion: minorVersion, framing: framing,
            keepsAlive: minorVersion == 1 ? !closes : asksKeepAlive && !closes, expectsContinue: expectsContinue)
    }

    private func copy(_ bytes: Span<UInt8>, _ count: Int) -> [UInt8] {
        unsafe bytes.extracting(0..<count).withUnsafeBufferPointer { unsafe Array($0) }
    }

    /// Path and query of an origin-form, absolute-form or asterisk-form target (RFC 9112 §3.2).
    private func splitTarget(_ bytes: Span<UInt8>) throws(HTTPParseError) -> (HeadSlice, HeadSlice) {
        var start = Int(target.start)
        let end = Int(target.end)
        if bytes[start] == UInt8(ascii: "*") {
            guard end - start == 1, matches(method, "OPTIONS", bytes, exactly: true) else {
                throw HTTPParseError(400, "the target '*' is for OPTIONS only")
            }
        } else if bytes[start] != UInt8(ascii: "/") {
            start = try skipAuthority(bytes)
        }
        var index = start
        while index < end, bytes[index] != UInt8(ascii: "?"), bytes[index] != UInt8(ascii: "#") { index += 1 }
        let path = HeadSlice(start: UInt32(start), end: UInt32(index))
        guard index < end else { return (path, HeadSlice(start: 0, end: 0)) }
        guard bytes[index] == UInt8(ascii: "?") else { throw HTTPParseError(400, "a '#' in the request target") }
        return (path, HeadSlice(start: UInt32(index + 1), end: UInt32(end)))
    }

    private func skipAuthority(_ bytes: Span<UInt8>) throws(HTTPParseError) -> Int {
        var start = Int(target.start)
        let end = Int(target.end)
        let scheme: StaticString = "http://"
        guard end - start > 7, matches(HeadSlice(start: target.start, end: target.start + 7), scheme, bytes) else {
            throw HTTPParseError(400, "the request target is not a path")
        }
        start += 7
        while start < end, bytes[start] != UInt8(ascii: "/") { start += 1 }
        guard start < end else { throw HTTPParseError(400, "the request target has no path") }
        return start
    }

    private func matches(_ slice: HeadSlice, _ word: StaticString, _ bytes: Span<UInt8>, exactly: Bool) -> Bool {
        guard Int(slice.end - slice.start) == word.utf8CodeUnitCount else { return false }
        for offset in 0..<word.utf8CodeUnitCount {
            let wanted = unsafe word.utf8Start[offset]
            if bytes[Int(slice.start) + offset] != wanted { return false }
        }
        return true
    }
}
