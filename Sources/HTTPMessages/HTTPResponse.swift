/// One response, and its bytes.

/// Status, fields and body of a response. `Content-Length` and `Date` are added when it is written.
public struct HTTPResponse: Sendable {
    public var status: Int
    public var fields: HTTPFields
    public var body: [UInt8]
    /// What `Content-Length` says in the answer to HEAD, whose body is not there.
    public var headLength: Int?

    public init(status: Int, fields: HTTPFields = HTTPFields(), body: [UInt8] = []) {
        self.status = status
        self.fields = fields
        self.body = body
    }

    /// A response with a content type.
    public init(status: Int, contentType: String, body: [UInt8]) {
        self.init(status: status, body: body)
        fields.add("Content-Type", contentType)
    }

    /// A JSON response.
    public static func json(_ status: Int, _ body: [UInt8]) -> HTTPResponse {
        HTTPResponse(status: status, contentType: "application/json", body: body)
    }

    /// A plain-text response.
    public static func text(_ status: Int, _ body: String) -> HTTPResponse {
        HTTPResponse(status: status, contentType: "text/plain; charset=utf-8", body: Array(body.utf8))
    }

    /// Whether this status may carry a body at all (RFC 9110 §15).
    public var allowsBody: Bool { status >= 200 && status != 204 && status != 304 }

    /// Appends the head. `date` is an HTTP date.
    public func appendHead(to bytes: inout [UInt8], date: [UInt8], keepsAlive: Bool, minorVersion: Int) {
        if status == 200 {
            bytes.append("HTTP/1.1 200 OK\r\n" as StaticString)
        } else {
            bytes.append(StatusLines.line(status))
        }
        bytes.append(fields.bytes)
        if allowsBody {
            bytes.append("Content-Length: " as StaticString)
            appendDecimal(headLength ?? body.count, to: &bytes)
            bytes.append("\r\nDate: " as StaticString)
        } else {
            bytes.append("Date: " as StaticString)
        }
        bytes.append(date)
        if !keepsAlive {
            bytes.append("\r\nConnection: close\r\n\r\n" as StaticString)
        } else if minorVersion == 0 {
            bytes.append("\r\nConnection: keep-alive\r\n\r\n" as StaticString)
        } else {
            bytes.append("\r\n\r\n" as StaticString)
        }
    }
}

extension [UInt8] {
    /// Appends the bytes of a literal, which needs no storage of its own.
    @inline(__always)
    mutating func append(_ text: StaticString) {
        // The literal lives as long as the process, and says how long it is.
        unsafe append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Appends other bytes without taking part in their ownership.
    @inline(__always)
    mutating func append(_ bytes: borrowing [UInt8]) {
        unsafe bytes.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
    }
}

/// Appends a non-negative number in decimal.
public func appendDecimal(_ value: Int, to bytes: inout [UInt8]) {
    if value < 10 {
        bytes.append(UInt8(truncatingIfNeeded: 48 + value))
        return
    }
    var digits: InlineArray<20, UInt8> = .init(repeating: 0)
    var first = 20
    var rest = value
    while rest > 0 {
        first -= 1
        digits[first] = UInt8(truncatingIfNeeded: 48 + rest % 10)
        rest /= 10
    }
    unsafe digits.span.withUnsafeBufferPointer { unsafe bytes.append(contentsOf: $0[first...]) }
}

enum StatusLines {
    private static let lines: [[UInt8]] = (0..<600).map { Array("HTTP/1.1 \($0) \(reason($0))\r\n".utf8) }

    static func line(_ status: Int) -> [UInt8] { lines[status >= 100 && status < 600 ? status : 500] }

    private static func reason(_ status: Int) -> String { HTTPStatus.reason(status) }
}

/// Names of status codes (the IANA registry).
public enum HTTPStatus {
    /// The reason phrase; empty for a code without one.
    public static func reason(_ status: Int) -> String { reasons[status] ?? "" }

    private static let reasons: [Int: String] = [
        100: "Continue", 101: "Switching Protocols", 200: "OK", 201: "Created", 202: "Accepted",
        203: "Non-Authoritative Information", 204: "No Content", 205: "Reset Content", 206: "Partial Content",
        300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
        307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized",
        402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
        406: "Not Acceptable", 408: "Request Timeout", 409: "Conflict", 410: "Gone", 411: "Length Required",
        412: "Precondition Failed", 413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
        416: "Range Not Satisfiable", 417: "Expectation Failed", 418: "I'm a teapot",
        422: "Unprocessable Content", 424: "Failed Dependency", 429: "Too Many Requests",
        431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
        502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
        507: "Insufficient Storage",
    ]
}
