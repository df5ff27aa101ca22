/// Where a Redis is: the form the Azure portal shows, or a redis URL.
internal import Diagnostics

/// A parsed connection string.
public struct RedisAddress: Sendable, Equatable {
    public var host = ""
    public var port = 6379
    /// A Unix socket in place of host and port.
    public var unixPath: String?
    public var user: String?
    public var password: String?
    public var database = 0
    public var usesTLS = false

    private static let options = [
        "password", "user", "username", "ssl", "abortConnect", "defaultDatabase", "connectTimeout", "syncTimeout",
        "asyncTimeout", "connectRetry", "keepAlive", "name", "allowAdmin", "sslHost", "sslProtocols", "resolveDns",
        "tiebreaker", "version", "channelPrefix", "configChannel", "proxy", "responseTimeout",
    ]

    /// Reads `host:port,password=…,ssl=True,…`, `redis://[user:password@]host[:port][/db]`, `rediss://…`
    /// or `unix:///path`.
    public init(_ text: String) throws(RedisError) {
        if let scheme = text.firstRange(of: "://") {
            try readURL(scheme: text[..<scheme.lowerBound].lowercased(), rest: text[scheme.upperBound...])
        } else {
            try readOptions(text)
        }
        guard unixPath != nil || !host.isEmpty else {
            throw .connectionString(
                "RedisConnectionString names no host",
                remedy: "write host:port,password=…,ssl=True or redis://host:port")
        }
    }

    private mutating func readURL(scheme: String, rest: Substring) throws(RedisError) {
        switch scheme {
        case "redis": break
        case "rediss": usesTLS = true
        case "unix":
            unixPath = String(rest)
            return
        default:
            throw .connectionString("'\(scheme)://' is no Redis address", remedy: "redis://, rediss:// or unix://")
        }
        var place = rest
        if let at = place.lastIndex(of: "@") {
            let credentials = place[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            place = place[place.index(after: at)...]
            if credentials.count == 2 {
                user = credentials[0].isEmpty ? nil : String(credentials[0])
                password = String(credentials[1])
            } else {
                password = String(credentials[0])
            }
        }
        if let slash = place.firstIndex(of: "/") {
            let number = place[place.index(after: slash)...]
            place = place[..<slash]
            if !number.isEmpty {
                guard let index = Int(number), index >= 0 else {
                    throw .connectionString("'\(number)' is no database number", remedy: "redis://host:port/0")
                }
                database = index
            }
        }
        try readEndpoint(place)
    }

    private mutating func readOptions(_ text: String) throws(RedisError) {
        var hasPort = false
        for (index, part) in text.split(separator: ",").map({ $0.drop(while: \.isWhitespace) }).enumerated() {
            guard let equals = part.firstIndex(of: "=") else {
                if index == 0 {
                    try readEndpoint(part)
                    hasPort = part.contains(":")
                }
                continue
            }
            try set(part[..<equals].lowercased(), String(part[part.index(after: equals)...]), written: part[..<equals])
        }
        if usesTLS, !hasPort { port = 6380 }
    }

    private mutating func set(_ name: String, _ value: String, written: Substring) throws(RedisError) {
        switch name {
        case "password": password = value
        case "user", "username": user = value
        case "ssl": usesTLS = value.lowercased() == "true"
        case "defaultdatabase":
            guard let index = Int(value), index >= 0 else {
                throw .connectionString("defaultDatabase is '\(value)', which is no number", remedy: nil)
            }
            database = index
        default:
            guard Self.options.contains(where: { $0.lowercased() == name }) else {
                throw .connectionString(
                    "unknown option '\(written)' in RedisConnectionString",
                    remedy: nearest(to: String(written), among: Self.options).map { "did you mean '\($0)'?" })
            }
        }
    }

    private mutating func readEndpoint(_ place: Substring) throws(RedisError) {
        guard let colon = place.lastIndex(of: ":"), !place.hasSuffix("]") else {
            host = String(place)
            return
        }
        host = String(place[..<colon].filter { $0 != "[" && $0 != "]" })
        guard let number = Int(place[place.index(after: colon)...]), (1...65535).contains(number) else {
            throw .connectionString("'\(place)' has no valid port", remedy: "a port is a number from 1 to 65535")
        }
        port = number
    }

    /// The address without its secrets.
    public var description: String {
        unixPath.map { "unix://\($0)" } ?? "\(usesTLS ? "rediss" : "redis")://\(host):\(port)/\(database)"
    }
}
