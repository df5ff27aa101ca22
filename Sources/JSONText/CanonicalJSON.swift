/// One spelling for all JSON texts of equal value, so that they share a cache key.

extension JSONValue {
    /// The canonical bytes: names sorted, no white space, one spelling per number and character.
    ///
    /// Numbers equal as 64-bit floats are written alike, as a reader such as Python's sees them, except
    /// integers past 2^53, which keep their digits. Of a repeated name the last one counts.
    public var canonicalBytes: [UInt8] {
        var writer = JSONWriter()
        writeCanonical(into: &writer)
        return writer.bytes
    }

    private func writeCanonical(into writer: inout JSONWriter) {
        switch content {
        case .number(let digits): writer.raw(Self.canonicalNumber(digits))
        case .array(let elements):
            writer.beginArray()
            for element in elements { element.writeCanonical(into: &writer) }
            writer.endArray()
        case .object(let members):
            var last: [String: JSONValue] = [:]
            for member in members { last[member.name] = member.value }
            writer.beginObject()
            for (name, value) in last.sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) {
                writer.name(name)
                value.writeCanonical(into: &writer)
            }
            writer.endObject()
        default: writer.value(self)
        }
    }

    /// Past this, neighbouring integers are one 64-bit float.
    private static let exactLimit = 9_007_199_254_740_992.0

    /// `1`, `1.0` and `10e-1` are one value, as they are to `==` in Python.
    private static func canonicalNumber(_ digits: String) -> String {
        let isInteger = !digits.utf8.contains { $0 == UInt8(ascii: ".") || $0 | 0x20 == UInt8(ascii: "e") }
        if isInteger { return digits == "-0" ? "0" : digits }
        guard let value = Double(digits), value.isFinite else { return digits }
        guard value.rounded(.towardZero) == value, value.magnitude < exactLimit else { return "\(value)" }
        return "\(Int(value))"
    }
}
