/// One request to a storage service, taken apart: who asks, for what, under which conditions.
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages
internal import HTTPServers
internal import StorageAccounts

/// An answer that is an error, in the service's own words (`x-ms-error-code`).
struct ServiceError: Error {
    let status: Int
    let code: String
    let message: String

    init(_ status: Int, _ code: String, _ message: String) {
        self.status = status
        self.code = code
        self.message = message
    }

    /// From an error of the folder.
    init(_ error: StorageError) {
        switch error {
        case .badName: self.init(400, "InvalidResourceName", error.message)
        case .tooLarge: self.init(413, "RequestBodyTooLarge", error.message)
        case .conditionNotMet:
            self.init(412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
        case .noRoom: self.init(507, "InsufficientStorage", error.message)
        case .linkLeadsOut, .notAFile, .unreadable: self.init(409, "BlobNotReadable", error.message)
        case .unwritable: self.init(409, "BlobNotWritable", error.message)
        case .store where error.code == "AN7005": self.init(507, "InsufficientStorage", error.message)
        default: self.init(503, "ServerBusy", error.message)
        }
    }
}

/// The parts of a request that the faces ask for.
struct StorageRequest {
    let method: String
    /// Decoded parts of the path after the account.
    let parts: [String]
    let query: [(name: String, value: String)]
    let headers: [(name: String, value: String)]
    let body: [UInt8]

    func query(_ name: String) -> String? { query.first { $0.name.lowercased() == name }?.value }

    func header(_ name: String) -> String? { headers.first { $0.name.lowercased() == name }?.value }

    /// `x-ms-meta-…`, names without the beginning.
    var metadata: [(name: String, value: String)] {
        headers.filter { $0.name.lowercased().hasPrefix("x-ms-meta-") }.map {
            (String($0.name.dropFirst(10)), $0.value)
        }
    }

    /// The first condition on the ETag, and a modified-since one as far as it is asked for.
    var condition: BlobCondition? {
        if let tag = header("if-match") { return .matches(Self.unquoted(tag)) }
        if let tag = header("if-none-match") { return .differs(Self.unquoted(tag)) }
        return nil
    }

    static func unquoted(_ tag: String) -> String {
        var tag = tag.hasPrefix("W/") ? tag.dropFirst(2) : tag[...]
        if tag.hasPrefix("\""), tag.hasSuffix("\""), tag.count >= 2 { tag = tag.dropFirst().dropLast() }
        return String(tag)
    }

    /// Reads a request and checks its signature.
    ///
    /// The path begins with the account's name, as at an emulator.
    init(_ request: HTTPRequest, account: String, key: [UInt8]) throws(ServiceError) {
        let head = request.head
        method = head.method
        query = Self.query(head.query)
        headers = head.allFields
        body = request.body
        let path = String(decoding: head.path, as: UTF8.self)
        guard let decoded = PercentCoding.decode(head.path) else {
            throw ServiceError(400, "InvalidUri", "The requested URI does not represent any resource on the server.")
        }
        let parts = decoded.dropFirst().split(separator: "/", maxSplits: 2, omittingEmptySubsequences: false)
        guard let first = parts.first, first == account else {
            throw ServiceError(
                404, "ResourceNotFound",
                "The account '\(parts.first ?? "")' does not exist; this one is '\(account)'.")
        }
        self.parts = parts.dropFirst().map(String.init).filter { !$0.isEmpty }
        let signed = SignedRequest(
            method: method, path: path, query: query, headers: headers, byteCount: request.body.count)
        let expected = "SharedKey \(account):\(signed.signature(account: account, key: key))"
        let given = head.value("authorization") ?? ""
        guard constantTimeEqual(Array(given.utf8), Array(expected.utf8)) else {
            throw ServiceError(
                403, "AuthenticationFailed",
                given.isEmpty
                    ? "The request has no Authorization header; use the development account's key."
                    : "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature."
            )
        }
    }

    /// Decoded, with `+` kept as it is: that is how the libraries sign.
    private static func query(_ bytes: ArraySlice<UInt8>?) -> [(name: String, value: String)] {
        guard let bytes else { return [] }
        return bytes.split(separator: UInt8(ascii: "&")).map { pair in
            let halves = pair.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            let text = { (slice: ArraySlice<UInt8>) in
                PercentCoding.decode(slice) ?? String(decoding: slice, as: UTF8.self)
            }
            return (text(halves[0]), halves.count > 1 ? text(halves[1]) : "")
        }
    }
}

/// Answers shared by both faces.
enum ServiceAnswer {
    static let version = "2021-12-02"

    static func error(_ error: ServiceError) -> HTTPResponse {
        var writer = XMLWriter()
        writer.open("Error")
        writer.element("Code", error.code)
        writer.element("Message", error.message)
        writer.close("Error")
        var response = HTTPResponse(status: error.status, contentType: "application/xml", body: writer.bytes)
        response.fields.add("x-ms-error-code", error.code)
        return response
    }

    static func xml(_ writer: XMLWriter, status: Int = 200) -> HTTPResponse {
        HTTPResponse(status: status, contentType: "application/xml", body: writer.bytes)
    }

    /// What every answer has.
    static func finish(_ response: HTTPResponse, for request: HTTPRequest) -> HTTPResponse {
        var response = response
        response.fields.add("x-ms-version", request.head.value("x-ms-version") ?? version)
        response.fields.add("x-ms-request-id", newGUID())
        if let id = request.head.value("x-ms-client-request-id") { response.fields.add("x-ms-client-request-id", id) }
        return response
    }

    /// The answer about the service itself: defaults for everything.
    static func serviceProperties() -> HTTPResponse {
        var writer = XMLWriter()
        writer.open("StorageServiceProperties")
        for name in ["Logging", "HourMetrics", "MinuteMetrics"] {
            writer.open(name)
            writer.element("Version", "1.0")
            if name == "Logging" {
                for verb in ["Delete", "Read", "Write"] { writer.element(verb, "false") }
            } else {
                writer.element("Enabled", "false")
            }
            writer.open("RetentionPolicy")
            writer.element("Enabled", "false")
            writer.close("RetentionPolicy")
            writer.close(name)
        }
        writer.element("Cors", "")
        writer.close("StorageServiceProperties")
        return xml(writer)
    }
}
