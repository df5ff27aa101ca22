/// Shared access signatures: made for outside brokers, checked by ours.
internal import EventLoops

/// A token `SharedAccessSignature sr=…&sig=…&se=…&skn=…`.
public struct SharedAccessSignature: Equatable, Sendable {
    /// What it is for, decoded.
    public let audience: String
    public let keyName: String
    /// Milliseconds since 1970.
    public let expiresAt: Int64

    /// Why a token is refused.
    struct Refusal: Error, Equatable {
        let reason: String
    }

    /// A token for `audience` (a URI), valid until `expiry` (seconds since 1970).
    public static func make(audience: String, keyName: String, key: String, expiry: Int64) -> String {
        let resource = percentEncode(audience)
        let signature = HMACSHA256.code(key: Array(key.utf8), message: Array("\(resource)\n\(expiry)".utf8))
        return
            "SharedAccessSignature sr=\(resource)&sig=\(percentEncode(base64(signature)))&se=\(expiry)&skn=\(percentEncode(keyName))"
    }

    static func check(_ token: String, keys: [String: String], now: Int64) -> Result<Self, Refusal> {
        let prefix = "sharedaccesssignature "
        guard token.lowercased().hasPrefix(prefix) else {
            return .failure(Refusal(reason: "the token is no SharedAccessSignature"))
        }
        var fields: [String: String] = [:]
        for part in token.dropFirst(prefix.count).split(separator: "&") {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if pair.count == 2 { fields[String(pair[0])] = String(pair[1]) }
        }
        guard let resource = fields["sr"], let signature = fields["sig"].flatMap(percentDecode),
            let expiry = fields["se"].flatMap({ Int64($0) }), let name = fields["skn"].flatMap(percentDecode),
            let audience = percentDecode(resource)
        else { return .failure(Refusal(reason: "the token lacks sr, sig, se or skn")) }
        guard let key = keys[name] else { return .failure(Refusal(reason: "the key name '\(name)' is not known")) }
        let expected = HMACSHA256.code(key: Array(key.utf8), message: Array("\(resource)\n\(expiry)".utf8))
        guard constantTimeEqual(Array(base64(expected).utf8), Array(signature.utf8)) else {
            return .failure(Refusal(reason: "InvalidSignature: The token has an invalid signature."))
        }
        guard expiry <= Int64.max / 1000, expiry * 1000 > now else {
            return .failure(Refusal(reason: "ExpiredToken: The token is expired."))
        }
        return .success(SharedAccessSignature(audience: audience, keyName: name, expiresAt: expiry * 1000))
    }
}

/// Letters, digits and `_.-~` as they are, everything else as `%XX`.
func percentEncode(_ text: String) -> String {
    var result = ""
    for byte in text.utf8 {
        let scalar = UnicodeScalar(byte)
        switch scalar {
        case "a"..."z", "A"..."Z", "0"..."9", "_", ".", "-", "~": result.unicodeScalars.append(scalar)
        default:
            let hex = String(byte, radix: 16, uppercase: true)
            result += "%" + (hex.count == 1 ? "0" : "") + hex
        }
    }
    return result
}

/// The opposite; `+` is a space. Nil for a broken escape or text that is not UTF-8.
func percentDecode(_ text: String) -> String? {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
        switch byte {
        case UInt8(ascii: "+"): bytes.append(0x20)
        case UInt8(ascii: "%"):
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
                return nil
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        default: bytes.append(byte)
        }
    }
    return String(validating: bytes, as: UTF8.self)
}

private let base64Digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

/// Standard base 64 with padding.
func base64(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
        let part = bytes[start..<min(start + 3, bytes.count)]
        var word: UInt32 = 0
        for byte in part { word = word << 8 | UInt32(byte) }
        word <<= UInt32(8 * (3 - part.count))
        for digit in 0..<4 {
            text.append(
                digit <= part.count ? base64Digits[Int(word >> UInt32(18 - 6 * digit) & 63)] : UInt8(ascii: "="))
        }
    }
    return String(decoding: text, as: UTF8.self)
}
