/// What a registry asks for with 401, and how to write what is answered (RFC 7235, distribution's token spec).

/// One `WWW-Authenticate` challenge.
struct RegistryChallenge: Equatable, Sendable {
    /// In lower case.
    let scheme: String
    let parameters: [String: String]

    /// Parses a header; commas may stand inside quotes.
    init?(_ header: String) {
        let trimmed = header.drop { $0 == " " }
        guard let space = trimmed.firstIndex(of: " ") else {
            guard !trimmed.isEmpty else { return nil }
            scheme = trimmed.lowercased()
            parameters = [:]
            return
        }
        scheme = trimmed[..<space].lowercased()
        var found: [String: String] = [:]
        var rest = trimmed[space...]
        while let equals = rest.firstIndex(of: "=") {
            let name = rest[..<equals].filter { $0 != " " && $0 != "," }.lowercased()
            rest = rest[rest.index(after: equals)...]
            var value = ""
            if rest.first == "\"" {
                rest = rest.dropFirst()
                while let character = rest.first, character != "\"" {
                    if character == "\\" { rest = rest.dropFirst() }
                    if let next = rest.first { value.append(next) }
                    rest = rest.dropFirst()
                }
                rest = rest.dropFirst()
            } else {
                value = String(rest.prefix { $0 != "," && $0 != " " })
                rest = rest.dropFirst(value.count)
            }
            found[name] = value
        }
        parameters = found
    }

    subscript(name: String) -> String? { parameters[name] }
}

/// The text as a part of a URL's query or of a form.
func percentEncode(_ text: String) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var result: [UInt8] = []
    for byte in text.utf8 {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: result.append(byte)
        default: result += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
    }
    return String(decoding: result, as: UTF8.self)
}

/// Whether a host and port is this machine.
public func isLoopback(_ host: String) -> Bool {
    let name = host.hasPrefix("[") ? String(host.prefix { $0 != "]" }.dropFirst()) : String(host.prefix { $0 != ":" })
    return name == "localhost" || name == "::1"
        || name.hasPrefix("127.") && name.allSatisfy { "0123456789.".contains($0) }
}
