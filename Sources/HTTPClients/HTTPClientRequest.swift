/// What is sent and what comes back: requests, responses, and who takes a body piece by piece.
public import EventLoops

/// A part of a file that is sent as a body.
public struct HTTPUpload: Sendable {
    public let path: String
    public let offset: Int
    public let byteCount: Int

    public init(path: String, offset: Int = 0, byteCount: Int) {
        self.path = path
        self.offset = offset
        self.byteCount = byteCount
    }
}

/// One request.
public struct HTTPClientRequest: Sendable {
    public var method: String
    public var url: String
    public var headers: [(name: String, value: String)]
    public var body: [UInt8]
    /// Sent instead of `body`.
    public var upload: HTTPUpload?
    /// For the whole exchange.
    public var timeout: Duration
    /// For a connection to be made, TLS included.
    public var connectTimeout = Duration.seconds(30)
    /// Ends an exchange that moves less than 1000 bytes a second for so long; zero is never.
    public var stallTimeout = Duration.zero
    /// Follows up to 10 redirects. `Authorization` stays with the first host and port, and https stays https.
    public var followsRedirects = false
    /// Certificates that are trusted instead of the system's, a PEM file.
    public var certificateAuthorityFile: String?
    /// Bytes of a response body that are kept; one more ends the exchange with an error.
    public var responseByteLimit = HTTPClient.responseByteLimit

    public init(
        method: String = "GET", url: String, headers: [(name: String, value: String)] = [], body: [UInt8] = [],
        timeout: Duration = .seconds(60)
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.timeout = timeout
    }
}

/// One response, whole.
public struct HTTPClientResponse: Sendable {
    public let status: Int
    /// Names in lower case.
    public let headers: [(name: String, value: String)]
    /// Empty when a receiver took it.
    public let body: [UInt8]
    /// Where the answer came from, after redirects.
    public let url: String

    /// The first value of a header; `name` in lower case.
    public func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
}

/// What a receiver wants next.
public enum HTTPBodyFlow: Sendable {
    /// The bytes were taken.
    case more
    /// The bytes were not taken; they come again after ``HTTPTransfer/resume()``.
    case pause
    /// The exchange ends with an error.
    case stop
}

/// Takes a body as it arrives.
@EventLoop
public protocol HTTPBodyReceiver: AnyObject {
    /// The head, once, before the body; false leaves the body to the response, as without a receiver.
    func takesBody(of head: HTTPClientResponse) -> Bool
    /// The next bytes; valid during the call.
    func receive(_ bytes: UnsafeRawBufferPointer) -> HTTPBodyFlow
}
