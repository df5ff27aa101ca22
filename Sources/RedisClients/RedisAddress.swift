/// Where a Redis is and how to get in: the form the Azure portal shows, or a redis URL.
internal import Diagnostics

/// One server: host and port, or a Unix socket.
public struct RedisEndpoint: Hashable, Sendable, CustomStringConvertible {
    public var host: String
    public var port: Int
    public var unixPath: String?

    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    init(unixPath: String) {
        host = ""
        port = 0
        self.unixPath = unixPath
    }

    public var description: String { unixPath ?? (host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)") }
}

/// A parsed connection string.
public struct RedisAddress: Sendable, Equatable {
    /// At least one. Several are the same Redis: its replicas, or nodes of its cluster.
    public var endpoints: [RedisEndpoint] = []
    public var user: String?
    public var password: String?
    public var database = 0
    public var usesTLS = false
    /// The name to ask for and to find in the certificate; nil is the endpoint's own host.
    public var tlsHost: String?
    /// A PEM file of authorities to trust in place of the system's.
    public var authorityFile: String?
    /// A PEM file with the client's own certificate, and its key.
    public var certificateFile: String?
    public var keyFile: String?
    /// False accepts any certificate.
    public var verifiesCertificate = true
    /// What `CLIENT LIST` shows on the server.
    public var clientName: String?

    /// Ports when none is written.
    static let plainPort = 6379
    static let tlsPort = 6380

    /// Reads `host:port,password=…,ssl=True,…`, `redis://[user:password@]host[:port][/db]`, `rediss://…`
    /// or `unix:///path`.
    ///
    /// - Throws: ``RedisError/connectionString(_:remedy:)``, with the nearest known option for a misspelt one.
    public init(_ text: String) throws(RedisError) {
        let trimmed = text.trimmedSpaces
        if let scheme = trimmed.firstRange(of: "://"),
            !trimmed[..<scheme.lowerBound].contains(where: { ",=".contains($0) })
        {
            try readURL(scheme: trimmed[..<scheme.lowerBound].lowercased(), rest: trimmed[scheme.upperBound...])
        } else {
            try readOptions(trimmed)
        }
        guard endpoints.contains(where: { $0.unixPath != nil || !$0.host.isEmpty }) else {
            throw .connectionString(
                "RedisConnectionString names no host",
                remedy: "write host:port,password=…,ssl=True or redis://host:port")
        }
        for endpoint in endpoints { try checkName(endpoint.host) }
    }

    /// A name under Azure's domain keeps Azure's rule.
    private func checkName(_ host: String) throws(RedisError) {
        guard host.lowercased().hasSuffix(RedisCacheName.domain) else { return }
        let name = String(host.dropLast(RedisCacheName.domain.count))
        if let rule = RedisCacheName.brokenRule(name) {
            throw .connectionString(
                "'\(name)' is no name of an Azure Cache for Redis: \(rule)",
                remedy: "copy the connection string from the portal")
        }
    }

    /// The name a connection to `endpoint` asks for and checks. Nodes of a cluster may be known by number only;
    /// their certificate is the cache's.
    func serverName(for endpoint: RedisEndpoint) -> String {
        if let tlsHost { return tlsHost }
        let isNumber = endpoint.host.contains(":") || endpoint.host.allSatisfy { $0.isNumber || $0 == "." }
        return isNumber ? endpoints.first?.host ?? endpoint.host : endpoint.host
    }

    /// The address without its secrets.
    public var description: String {
        let places = endpoints.map(\.description).joined(separator: ",")
        if endpoints.first?.unixPath != nil { return "unix://\(places)" }
        return "\(usesTLS ? "rediss" : "redis")://\(places)/\(database)"
    }
}

extension StringProtocol {
    var trimmedSpaces: String {
        var rest = self[...]
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}
