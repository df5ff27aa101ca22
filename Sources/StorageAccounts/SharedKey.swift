/// SharedKey: how requests to a storage service are signed and checked.
///
/// The string to sign is that of the Blob, Queue and File services, version 2009-09-19 and later («Authorize with Shared
/// Key»).
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages

/// The parts of a request that its signature covers.
public struct SignedRequest: Sendable {
    public var method: String
    /// As it is sent, percent-encoded, beginning with a slash.
    public var path: String
    /// Decoded names and values.
    public var query: [(name: String, value: String)]
    public var headers: [(name: String, value: String)]
    public var byteCount: Int

    public init(
        method: String, path: String, query: [(name: String, value: String)],
        headers: [(name: String, value: String)], byteCount: Int
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.byteCount = byteCount
    }

    /// The signature, in Base64.
    public func signature(account: String, key: [UInt8]) -> String {
        encodeBase64(HMACSHA256.code(key: key, message: Array(stringToSign(account: account).utf8)))
    }

    /// The text that is signed.
    public func stringToSign(account: String) -> String {
        let value = { (name: String) in headers.first { $0.name.lowercased() == name }?.value ?? "" }
        let standard = [
            "content-encoding", "content-language", "", "content-md5", "content-type", "date", "if-modified-since",
            "if-match", "if-none-match", "if-unmodified-since", "range",
        ]
        var lines = [method]
        for name in standard {
            if name.isEmpty {
                lines.append(byteCount > 0 ? "\(byteCount)" : "")
            } else if name == "date", headers.contains(where: { $0.name.lowercased() == "x-ms-date" }) {
                lines.append("")
            } else {
                lines.append(value(name))
            }
        }
        let own = headers.map { (name: $0.name.lowercased(), value: $0.value) }.filter { $0.name.hasPrefix("x-ms-") }
            .sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        for header in own { lines.append("\(header.name):\(Self.trimmed(header.value))") }
        var resource = "/\(account)\(path)"
        var values: [String: [String]] = [:]
        for (name, value) in query { values[name.lowercased(), default: []].append(value) }
        for name in values.keys.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
            resource += "\n\(name):\((values[name] ?? []).sorted().joined(separator: ","))"
        }
        lines.append(resource)
        return lines.joined(separator: "\n")
    }

    private static func trimmed(_ text: String) -> String {
        let start = text.drop { $0 == " " || $0 == "\t" }
        return String(start.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
    }
}
