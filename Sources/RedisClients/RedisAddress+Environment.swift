/// The parts of a connection string as environment variables, for scripts with a client of their own.

extension RedisAddress {
    /// `REDIS_HOST`, `REDIS_PORT`, `REDIS_PASSWORD`, `REDIS_USER`, `REDIS_SSL`, `REDIS_DB`, `REDIS_URL` and, for an
    /// authority of one's own, `SSL_CERT_FILE`.
    public var environment: [String: String] {
        guard let first = endpoints.first else { return [:] }
        var result = ["REDIS_SSL": usesTLS ? "True" : "False", "REDIS_DB": "\(database)"]
        if first.unixPath == nil {
            result["REDIS_HOST"] = first.host
            result["REDIS_PORT"] = "\(first.port)"
        }
        if let password { result["REDIS_PASSWORD"] = password }
        if let user { result["REDIS_USER"] = user }
        if let authorityFile { result["SSL_CERT_FILE"] = authorityFile }
        result["REDIS_URL"] = url(of: first)
        return result
    }

    /// The URL redis-py reads.
    private func url(of endpoint: RedisEndpoint) -> String {
        var credentials = ""
        if user != nil || password != nil {
            credentials = "\(Self.encoded(user ?? "")):\(Self.encoded(password ?? ""))@"
        }
        if let path = endpoint.unixPath { return "unix://\(credentials)\(Self.encoded(path, but: "/"))?db=\(database)" }
        var text = "\(usesTLS ? "rediss" : "redis")://\(credentials)\(endpoint)/\(database)"
        if usesTLS, !verifiesCertificate { text += "?ssl_cert_reqs=none" }
        if usesTLS, verifiesCertificate, let authorityFile { text += "?ssl_ca_certs=\(Self.encoded(authorityFile))" }
        return text
    }

    static func encoded(_ text: String, but plain: String = "") -> String {
        let digits = Array("0123456789ABCDEF")
        return text.utf8.map { byte in
            let isPlain = (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
            return isPlain || ("-._~" + plain).utf8.contains(byte)
                ? String(UnicodeScalar(byte)) : "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
        }.joined()
    }
}
