/// Who a registry is told we are: from settings or from Docker's own configuration.
internal import ConfigurationFiles
internal import JSONText

/// A user name and up to two passwords, either of which may work, or an identity token.
///
/// Never printed: its description has the user name only.
public struct RegistryCredentials: Sendable, Equatable, CustomStringConvertible {
    public let username: String
    /// Tried in this order; Azure's registries have two, so that one can be renewed while the other is used.
    public let passwords: [String]
    /// An OAuth2 refresh token, used instead of a password.
    public let identityToken: String?

    public init(username: String, passwords: [String], identityToken: String? = nil) {
        self.username = username
        self.passwords = passwords
        self.identityToken = identityToken
    }

    public var description: String { "\(username):<redacted>" }

    /// The credentials for a registry in `config.json` of Docker's configuration folder; nil when it has none.
    ///
    /// - Parameters:
    ///   - host: the registry's host and port, `docker.io` for Docker Hub.
    ///   - environment: `DOCKER_CONFIG` names the folder, `$HOME/.docker` otherwise.
    public static func fromDockerConfiguration(
        host: String, environment: [String: String]
    ) -> RegistryCredentials? {
        let folder = environment["DOCKER_CONFIG"] ?? environment["HOME"].map { $0 + "/.docker" }
        guard let folder, let bytes = readFile(folder + "/config.json", limit: 1 << 20),
            let entries = (try? JSONParser.parse(bytes))?["auths"]?.members
        else { return nil }
        for entry in entries where hostOf(entry.name) == hostOf(host) {
            let token = entry.value["identitytoken"]?.string
            if let encoded = entry.value["auth"]?.string, let decoded = decodeBase64(encoded),
                let colon = decoded.firstIndex(of: UInt8(ascii: ":"))
            {
                return RegistryCredentials(
                    username: String(decoding: decoded[..<colon], as: UTF8.self),
                    passwords: [String(decoding: decoded[(colon + 1)...], as: UTF8.self)],
                    identityToken: token)
            }
            if let name = entry.value["username"]?.string, let password = entry.value["password"]?.string {
                return RegistryCredentials(username: name, passwords: [password], identityToken: token)
            }
            if let token { return RegistryCredentials(username: "", passwords: [], identityToken: token) }
        }
        return nil
    }
}

/// Host and port of a registry's address, however it is written; Docker Hub's names are one.
public func hostOf(_ address: String) -> String {
    var text = address[...]
    if let scheme = text.firstRange(of: "://") { text = text[scheme.upperBound...] }
    let host = String(text.prefix { $0 != "/" })
    return ["index.docker.io", "registry-1.docker.io"].contains(host) ? "docker.io" : host
}

/// RFC 4648 text of bytes.
public func encodeBase64(_ bytes: [UInt8]) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var result: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
        let group = bytes[start..<min(start + 3, bytes.count)]
        var word = 0
        for index in 0..<3 { word = word << 8 | (index < group.count ? Int(group[start + index]) : 0) }
        for index in 0..<4 {
            result.append(
                index <= group.count ? alphabet[word >> (18 - 6 * index) & 63] : UInt8(ascii: "="))
        }
    }
    return String(decoding: result, as: UTF8.self)
}

/// The bytes of RFC 4648 text; nil when it is none.
public func decodeBase64(_ text: String) -> [UInt8]? {
    var result: [UInt8] = []
    var word = 0
    var bits = 0
    for byte in text.utf8 {
        let value: Int
        switch byte {
        case 0x41...0x5A: value = Int(byte) - 0x41
        case 0x61...0x7A: value = Int(byte) - 0x61 + 26
        case 0x30...0x39: value = Int(byte) - 0x30 + 52
        case 0x2B: value = 62
        case 0x2F: value = 63
        case 0x3D, 0x0A, 0x0D: continue
        default: return nil
        }
        word = (word << 6 | value) & 0xFFFFFF
        bits += 6
        if bits >= 8 {
            bits -= 8
            result.append(UInt8(word >> bits & 0xFF))
        }
    }
    return result
}
