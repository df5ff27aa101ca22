/// Reading redis URLs, with the query parameters redis-py has.
internal import Diagnostics

extension RedisAddress {
    static let parameters = [
        "db", "ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "client_name",
        "protocol", "username", "password", "socket_timeout", "socket_connect_timeout", "decode_responses",
    ]

    mutating func readURL(scheme: String, rest: Substring) throws(RedisError) {
        var place = rest
        var query = Substring()
        if let mark = place.firstIndex(of: "?") {
            query = place[place.index(after: mark)...]
            place = place[..<mark]
        }
        if let at = place.lastIndex(of: "@") {
            readCredentials(place[..<at])
            place = place[place.index(after: at)...]
        }
        switch scheme {
        case "redis", "rediss":
            usesTLS = scheme == "rediss"
            if let slash = place.firstIndex(of: "/") {
                let number = place[place.index(after: slash)...]
                if !number.isEmpty { database = try databaseNumber(number) }
                place = place[..<slash]
            }
            for one in place.split(separator: ",") { try addEndpoint(one, defaultPort: Self.plainPort) }
        case "unix":
            guard place.hasPrefix("/") else {
                throw .connectionString("'unix://\(place)' names no socket", remedy: "unix:///path/to/redis.sock")
            }
            endpoints = [RedisEndpoint(unixPath: Self.decoded(place))]
        default:
            throw .connectionString("'\(scheme)://' is no Redis address", remedy: "redis://, rediss:// or unix://")
        }
        for pair in query.split(separator: "&") { try readParameter(pair) }
    }

    private mutating func readCredentials(_ text: Substring) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else {
            // A lone word is the password, as redis-cli has it.
            password = Self.decoded(text)
            return
        }
        user = parts[0].isEmpty ? nil : Self.decoded(parts[0])
        password = parts[1].isEmpty ? nil : Self.decoded(parts[1])
    }

    private mutating func readParameter(_ pair: Substring) throws(RedisError) {
        let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        let value = Self.decoded(parts.count == 2 ? parts[1] : "")
        switch name {
        case "db": database = try databaseNumber(value)
        case "username": user = value
        case "password": password = value
        case "client_name": clientName = value
        case "ssl_ca_certs": authorityFile = value
        case "ssl_certfile": certificateFile = value
        case "ssl_keyfile": keyFile = value
        case "ssl_cert_reqs":
            guard ["none", "optional", "required"].contains(value.lowercased()) else {
                throw .connectionString("ssl_cert_reqs is '\(value)'", remedy: "none or required")
            }
            verifiesCertificate = value.lowercased() == "required"
        case "protocol":
            guard value == "2" else { throw .connectionString("protocol is '\(value)'", remedy: "2, or leave it out") }
        default:
            guard Self.parameters.contains(name) else {
                throw .connectionString(
                    "unknown parameter '\(name)' in RedisConnectionString",
                    remedy: nearest(to: name, among: Self.parameters).map { "did you mean '\($0)'?" })
            }
        }
    }

    /// Percent escapes decoded; what is no escape stays.
    static func decoded(_ text: some StringProtocol) -> String {
        let bytes = Array(text.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "%"), index + 2 < bytes.count,
                let value = UInt8(String(decoding: bytes[(index + 1)...(index + 2)], as: UTF8.self), radix: 16)
            {
                result.append(value)
                index += 3
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
