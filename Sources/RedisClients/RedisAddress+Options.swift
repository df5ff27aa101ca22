/// Reading the form of the Azure portal: `host:port,option=value,…`, as StackExchange.Redis has it.
internal import Diagnostics

extension RedisAddress {
    /// Options of StackExchange.Redis, and three of our own: `sslCaFile`, `sslCertFile` with `sslKeyFile`, `sslVerify`.
    /// Those that steer that library's own threads and retries are accepted and have no effect here.
    static let options = [
        "password", "user", "username", "ssl", "sslHost", "sslProtocols", "sslCaFile", "sslVerify", "sslCertFile",
        "sslKeyFile", "defaultDatabase", "name", "abortConnect", "connectTimeout", "syncTimeout", "asyncTimeout",
        "connectRetry", "keepAlive", "allowAdmin", "checkCertificateRevocation", "resolveDns", "tiebreaker", "version",
        "channelPrefix", "configChannel", "configCheckSeconds", "proxy", "responseTimeout", "serviceName", "protocol",
        "highIntegrity", "setlib", "tunnel", "writeBuffer", "heartbeatConsistencyChecks",
    ]

    mutating func readOptions(_ text: String) throws(RedisError) {
        var places: [Substring] = []
        for part in text.split(separator: ",").map({ $0.drop(while: \.isWhitespace) }) where !part.isEmpty {
            guard let equals = part.firstIndex(of: "=") else {
                places.append(part)
                continue
            }
            let name = part[..<equals].trimmedSpaces
            try set(name, String(part[part.index(after: equals)...]).trimmedSpaces)
        }
        for place in places {
            try addEndpoint(place, defaultPort: usesTLS ? Self.tlsPort : Self.plainPort)
        }
    }

    private mutating func set(_ name: String, _ value: String) throws(RedisError) {
        switch name.lowercased() {
        case "password": password = value
        case "user", "username": user = value
        case "ssl": usesTLS = try flag(name, value)
        case "sslhost": tlsHost = value
        case "sslprotocols":
            let known = ["none", "tls12", "tls13"]
            guard value.lowercased().split(separator: "|").allSatisfy({ known.contains($0.trimmedSpaces) }) else {
                throw .connectionString(
                    "sslProtocols is '\(value)'", remedy: "tls12, tls13 or tls12|tls13; older ones are not safe")
            }
        case "sslcafile": authorityFile = value
        case "sslcertfile": certificateFile = value
        case "sslkeyfile": keyFile = value
        case "sslverify": verifiesCertificate = try flag(name, value)
        case "defaultdatabase": database = try databaseNumber(value)
        case "name": clientName = value
        case "protocol":
            guard ["resp2", "2"].contains(value.lowercased()) else {
                throw .connectionString("protocol is '\(value)'", remedy: "resp2, or leave it out")
            }
        default:
            guard Self.options.contains(where: { $0.lowercased() == name.lowercased() }) else {
                throw .connectionString(
                    "unknown option '\(name)' in RedisConnectionString",
                    remedy: nearest(to: name, among: Self.options).map { "did you mean '\($0)'?" })
            }
        }
    }

    func flag(_ name: String, _ value: String) throws(RedisError) -> Bool {
        switch value.lowercased() {
        case "true", "1", "yes": return true
        case "false", "0", "no": return false
        default: throw .connectionString("\(name) is '\(value)'", remedy: "True or False")
        }
    }

    func databaseNumber(_ text: some StringProtocol) throws(RedisError) -> Int {
        guard let index = Int(text), (0..<1_000_000).contains(index) else {
            throw .connectionString("'\(text)' is no database number", remedy: "0 to 15, unless the server has more")
        }
        return index
    }

    mutating func addEndpoint(_ place: some StringProtocol, defaultPort: Int) throws(RedisError) {
        let text = place.trimmedSpaces
        var host = text[...]
        var port = defaultPort
        let isBareIPv6 = text.count { $0 == ":" } > 1 && !text.hasPrefix("[")
        if !isBareIPv6, let colon = text.lastIndex(of: ":"), !text.hasSuffix("]") {
            host = text[..<colon]
            let digits = text[text.index(after: colon)...]
            guard let number = Int(digits), (1...65535).contains(number) else {
                throw .connectionString("'\(text)' has no valid port", remedy: "a port is a number from 1 to 65535")
            }
            port = number
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        // By bytes: a combining character would hide the one before it.
        guard host.utf8.allSatisfy({ (0x21...0x7E).contains($0) && !"/@[]?#\"'".utf8.contains($0) }) else {
            throw .connectionString("'\(host)' is no host name", remedy: "host:port,password=…,ssl=True")
        }
        endpoints.append(RedisEndpoint(host: String(host), port: port))
    }
}
