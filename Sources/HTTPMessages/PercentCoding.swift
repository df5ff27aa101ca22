/// Percent-encoding of paths and queries (RFC 3986 §2.1, and `+` for a space in queries).

/// Decodes and encodes URL text.
public enum PercentCoding {
    /// The decoded text; nil when an escape is cut off, not hexadecimal, or not valid UTF-8, or holds a NUL.
    public static func decode(_ bytes: some Sequence<UInt8>, plusIsSpace: Bool = false) -> String? {
        var decoded: [UInt8] = []
        var iterator = bytes.makeIterator()
        while let byte = iterator.next() {
            switch byte {
            case UInt8(ascii: "%"):
                guard let high = iterator.next().flatMap(hexadecimalDigit),
                    let low = iterator.next().flatMap(hexadecimalDigit), high | low != 0
                else { return nil }
                decoded.append(UInt8(high << 4 | low))
            case UInt8(ascii: "+") where plusIsSpace: decoded.append(0x20)
            default: decoded.append(byte)
            }
        }
        return String(validating: decoded, as: UTF8.self)
    }

    /// The names and values of a query, decoded, in order; broken escapes are kept as written.
    public static func query(_ bytes: ArraySlice<UInt8>?) -> [(name: String, value: String)] {
        guard let bytes, !bytes.isEmpty else { return [] }
        return bytes.split(separator: UInt8(ascii: "&")).map { pair in
            let equals = pair.firstIndex(of: UInt8(ascii: "=")) ?? pair.endIndex
            let value = equals < pair.endIndex ? pair[(equals + 1)...] : pair[pair.endIndex...]
            return (lenient(pair[..<equals]), lenient(value))
        }
    }

    private static func lenient(_ bytes: ArraySlice<UInt8>) -> String {
        decode(bytes, plusIsSpace: true) ?? String(decoding: bytes, as: UTF8.self)
    }
}
