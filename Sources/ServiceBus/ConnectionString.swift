/// Connection settings: Azure's strings, and URLs of other brokers.
internal import EventLoops

/// Where a broker is and who we are there.
public struct BrokerAddress: Equatable, Sendable, Hashable {
    /// What speaks at the other end; brokers differ in what they can.
    public enum Kind: Equatable, Sendable, Hashable {
        /// Service Bus, its emulator, or the broker in a host: tokens, `$management`, lock tokens.
        case serviceBus
        /// Any other AMQP 1.0 broker.
        case plain
    }

    public var kind: Kind
    public var host: String
    /// Nil when the setting names none.
    public var port: Int?
    public var usesTLS: Bool
    /// A key name, or a user.
    public var user: String
    public var password: String
    /// A ready-made token instead of a key.
    public var signature: String?
    /// The only entity this setting may be used for.
    public var entityPath: String?
    /// Says `UseDevelopmentEmulator=true`.
    public var isEmulator: Bool

    /// The port that is dialled.
    public var dialledPort: Int { port ?? (usesTLS ? 5671 : 5672) }

    /// Whether a host serves this itself: the emulator on this machine.
    public var isEmbedded: Bool {
        isEmulator && ["localhost", "127.0.0.1", "::1", "[::1]"].contains(host.lowercased())
    }

    /// The broker that runs in this process; `key` is one it demands, if it does.
    public static func embedded(port: Int, key: (name: String, key: String)? = nil) -> BrokerAddress {
        BrokerAddress(
            kind: .serviceBus, host: "127.0.0.1", port: port, usesTLS: false, user: key?.name ?? "",
            password: key?.key ?? "", signature: nil, entityPath: nil, isEmulator: true)
    }

    /// Reads a connection string `Endpoint=sb://…;…`, or a URL `amqp://user:password@host:port`.
    ///
    /// - Throws: ``ServiceBusError/connectionString(setting:reason:)`` with what is missing or wrong.
    public init(_ text: String, setting: String) throws(ServiceBusError) {
        let text = text.drop { $0.isWhitespace }
        if text.lowercased().hasPrefix("amqp://") || text.lowercased().hasPrefix("amqps://") {
            try self.init(url: String(text), setting: setting)
            return
        }
        var fields: [String: String] = [:]
        for part in text.split(separator: ";") {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2 else {
                throw .connectionString(setting: setting, reason: "has a part without '='")
            }
            fields[String(pair[0]).lowercased()] = String(pair[1])
        }
        guard let endpoint = fields["endpoint"] else {
            throw .connectionString(setting: setting, reason: "has no Endpoint")
        }
        guard let colon = endpoint.firstRange(of: "://") else {
            throw .connectionString(
                setting: setting, reason: "has the Endpoint '\(endpoint)', which is no sb:// address")
        }
        let authority = endpoint[colon.upperBound...].prefix { $0 != "/" }
        let isEmulator = fields["usedevelopmentemulator"]?.lowercased() == "true"
        let place = try Self.place(authority, setting: setting)
        self.init(
            kind: .serviceBus, host: place.host, port: place.port, usesTLS: !isEmulator,
            user: fields["sharedaccesskeyname"] ?? "", password: fields["sharedaccesskey"] ?? "",
            signature: fields["sharedaccesssignature"], entityPath: fields["entitypath"], isEmulator: isEmulator)
        guard isEmulator || signature != nil || (!user.isEmpty && !password.isEmpty) else {
            throw .connectionString(setting: setting, reason: "has no SharedAccessKeyName and SharedAccessKey")
        }
    }

    private init(url: String, setting: String) throws(ServiceBusError) {
        usesTLS = url.lowercased().hasPrefix("amqps")
        var rest = url[(url.firstRange(of: "://")?.upperBound ?? url.endIndex)...]
        rest = rest.prefix { $0 != "/" && $0 != "?" }
        user = ""
        password = ""
        if let at = rest.lastIndex(of: "@") {
            let credentials = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = percentDecode(String(credentials[0])),
                let secret = percentDecode(credentials.count > 1 ? String(credentials[1]) : "")
            else { throw .connectionString(setting: setting, reason: "has broken percent escapes") }
            user = name
            password = secret
            rest = rest[rest.index(after: at)...]
        }
        let place = try Self.place(rest, setting: setting)
        host = place.host
        port = place.port
        kind = .plain
        isEmulator = false
        signature = nil
        entityPath = nil
    }

    private init(
        kind: Kind, host: String, port: Int?, usesTLS: Bool, user: String, password: String, signature: String?,
        entityPath: String?, isEmulator: Bool
    ) {
        self.kind = kind
        self.host = host
        self.port = port
        self.usesTLS = usesTLS
        self.user = user
        self.password = password
        self.signature = signature
        self.entityPath = entityPath
        self.isEmulator = isEmulator
    }

    private static func place(
        _ authority: Substring, setting: String
    ) throws(ServiceBusError) -> (host: String, port: Int?) {
        guard !authority.isEmpty else { throw .connectionString(setting: setting, reason: "names no host") }
        let tail = authority.lastIndex(of: "]").map { authority[authority.index(after: $0)...] } ?? authority[...]
        guard let colon = tail.lastIndex(of: ":") else { return (bare(authority), nil) }
        guard let port = Int(authority[authority.index(after: colon)...]), (1...65535).contains(port) else {
            throw .connectionString(setting: setting, reason: "has no valid port in '\(authority)'")
        }
        return (bare(authority[..<colon]), port)
    }

    private static func bare(_ host: Substring) -> String {
        host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : String(host)
    }
}
