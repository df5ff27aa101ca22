/// JSON values made by hand, for documents that are kept and changed.

extension JSONValue {
    /// A text.
    public static func text(_ text: String) -> JSONValue { JSONValue(.string(text)) }
    /// A text, or null.
    public static func optional(_ text: String?) -> JSONValue { text.map { .text($0) } ?? .null }
    /// A whole number.
    public static func number(_ number: Int) -> JSONValue { JSONValue(.number("\(number)")) }
    /// A truth.
    public static func flag(_ flag: Bool) -> JSONValue { JSONValue(.bool(flag)) }
    /// Nothing.
    public static var null: JSONValue { JSONValue(.null) }
    /// A list.
    public static func list(_ elements: [JSONValue]) -> JSONValue { JSONValue(.array(elements)) }
    /// An object with the members in this order.
    public static func record(_ members: KeyValuePairs<String, JSONValue>) -> JSONValue {
        JSONValue(.object(members.map { Member(name: $0.key, nameOffset: 0, value: $0.value) }))
    }

    /// The same object with one member set, at its place or at the end; this value when it is no object.
    public func setting(_ name: String, _ value: JSONValue) -> JSONValue {
        guard var members else { return self }
        let member = Member(name: name, nameOffset: 0, value: value)
        if let index = members.firstIndex(where: { $0.name == name }) {
            members[index] = member
        } else {
            members.append(member)
        }
        return JSONValue(.object(members))
    }

    /// The same object without one member.
    public func removing(_ name: String) -> JSONValue {
        guard let members else { return self }
        return JSONValue(.object(members.filter { $0.name != name }))
    }

    /// The value as text with two spaces of indentation a level.
    public func indented() -> [UInt8] {
        var bytes: [UInt8] = []
        write(self, 0, &bytes)
        bytes.append(0x0A)
        return bytes
    }
}

extension JSONValue: ExpressibleByDictionaryLiteral {
    /// An object.
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self.init(.object(elements.map { Member(name: $0.0, nameOffset: 0, value: $0.1) }))
    }
}

private func write(_ value: JSONValue, _ depth: Int, _ bytes: inout [UInt8]) {
    let pad = [UInt8](repeating: 0x20, count: 2 * (depth + 1))
    switch value.content {
    case .object(let members) where !members.isEmpty:
        bytes += "{\n".utf8
        for (index, member) in members.enumerated() {
            bytes += pad
            JSONWriter.quote(member.name.utf8, into: &bytes)
            bytes += ": ".utf8
            write(member.value, depth + 1, &bytes)
            bytes += (index + 1 < members.count ? ",\n" : "\n").utf8
        }
        bytes += pad.dropFirst(2) + Array("}".utf8)
    case .array(let elements) where !elements.isEmpty:
        bytes += "[\n".utf8
        for (index, element) in elements.enumerated() {
            bytes += pad
            write(element, depth + 1, &bytes)
            bytes += (index + 1 < elements.count ? ",\n" : "\n").utf8
        }
        bytes += pad.dropFirst(2) + Array("]".utf8)
    default:
        var writer = JSONWriter(bytes)
        writer.value(value)
        bytes = writer.bytes
    }
}
