/// A small reader of XML, for what administration clients send: elements and text. No DTD, no entities of one's own.

/// An element. Prefixes of namespaces are dropped.
public struct XMLNode: Equatable, Sendable {
    public let name: String
    public internal(set) var text = ""
    public internal(set) var children: [XMLNode] = []
    /// By name; prefixes are dropped here too.
    public internal(set) var attributes: [String: String] = [:]

    /// Bytes of a document, and how deep elements may nest.
    public static let byteLimit = 1 << 20
    public static let depthLimit = 32

    /// Where and why a text is no XML that is read here.
    public struct SyntaxError: Error, Equatable, Sendable {
        public let offset: Int
        public let reason: String
    }

    init(name: String) { self.name = name }

    /// The first child of a name.
    public subscript(name: String) -> XMLNode? { children.first { $0.name == name } }

    /// The first element of a name, however deep.
    public func first(_ name: String) -> XMLNode? {
        if self.name == name { return self }
        for child in children { if let found = child.first(name) { return found } }
        return nil
    }

    /// Reads a document.
    public static func parse(_ bytes: [UInt8]) throws(SyntaxError) -> XMLNode {
        var reader = XMLReader(bytes: bytes)
        guard bytes.count <= byteLimit else {
            throw SyntaxError(offset: byteLimit, reason: "the document is too large")
        }
        try reader.skipProlog()
        let root = try reader.element(depth: 0)
        try reader.skipProlog()
        guard reader.position == bytes.count else { throw reader.failure("text after the end of the document") }
        return root
    }
}

private struct XMLReader {
    let bytes: [UInt8]
    var position = 0

    func failure(_ reason: String) -> XMLNode.SyntaxError { XMLNode.SyntaxError(offset: position, reason: reason) }

    func starts(_ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        guard position + count <= bytes.count else { return false }
        let wanted = UnsafeBufferPointer(start: text.utf8Start, count: count)
        return bytes[position..<position + count].elementsEqual(wanted)
    }

    private mutating func skip(past end: [UInt8]) throws(XMLNode.SyntaxError) {
        while position + end.count <= bytes.count {
            if bytes[position..<position + end.count].elementsEqual(end) {
                position += end.count
                return
            }
            position += 1
        }
        throw failure("the document ends inside a comment or an instruction")
    }

    private mutating func skipSpace() {
        while position < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[position]) { position += 1 }
    }

    mutating func skipProlog() throws(XMLNode.SyntaxError) {
        if position == 0, bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
        while true {
            skipSpace()
            if starts("<?") {
                try skip(past: Array("?>".utf8))
            } else if starts("<!--") {
                try skip(past: Array("-->".utf8))
            } else if starts("<!") {
                throw failure("document types are not read")
            } else {
                return
            }
        }
    }

    private mutating func name() throws(XMLNode.SyntaxError) -> String {
        let start = position
        while position < bytes.count, !" \t\r\n/>=<\"'&".utf8.contains(bytes[position]) { position += 1 }
        guard position > start, let text = String(validating: bytes[start..<position], as: UTF8.self) else {
            throw failure("a name was expected")
        }
        return text.split(separator: ":").last.map(String.init) ?? text
    }

    mutating func element(depth: Int) throws(XMLNode.SyntaxError) -> XMLNode {
        guard depth < XMLNode.depthLimit else { throw failure("elements nest deeper than the limit") }
        guard starts("<") else { throw failure("an element was expected") }
        position += 1
        var node = XMLNode(name: try name())
        guard try attributes(of: &node) else { return node }
        while true {
            guard position < bytes.count else { throw failure("the document ends inside '\(node.name)'") }
            if starts("</") {
                position += 2
                guard try name() == node.name else { throw failure("'\(node.name)' is closed by another name") }
                skipSpace()
                guard starts(">") else { throw failure("'>' was expected") }
                position += 1
                return node
            } else if starts("<!--") {
                try skip(past: Array("-->".utf8))
            } else if starts("<![CDATA[") {
                position += 9
                let start = position
                try skip(past: Array("]]>".utf8))
                node.text += String(decoding: bytes[start..<position - 3], as: UTF8.self)
            } else if starts("<?") {
                try skip(past: Array("?>".utf8))
            } else if starts("<!") {
                throw failure("document types are not read")
            } else if starts("<") {
                node.children.append(try element(depth: depth + 1))
            } else {
                node.text += try text()
            }
        }
    }

    /// Reads attributes and the tag's end; false when the element is empty.
    private mutating func attributes(of node: inout XMLNode) throws(XMLNode.SyntaxError) -> Bool {
        while true {
            skipSpace()
            if starts("/>") {
                position += 2
                return false
            }
            if starts(">") {
                position += 1
                return true
            }
            let name = try name()
            skipSpace()
            guard starts("=") else { throw failure("'=' was expected") }
            position += 1
            skipSpace()
            guard position < bytes.count, bytes[position] == 0x22 || bytes[position] == 0x27 else {
                throw failure("a value in quotes was expected")
            }
            let quote = bytes[position]
            position += 1
            let value = try text(until: quote)
            guard position < bytes.count, bytes[position] == quote else { throw failure("a value does not end") }
            position += 1
            node.attributes[name] = value
        }
    }

    private mutating func text(until end: UInt8 = UInt8(ascii: "<")) throws(XMLNode.SyntaxError) -> String {
        var result: [UInt8] = []
        while position < bytes.count, bytes[position] != end {
            if bytes[position] == UInt8(ascii: "&") {
                let rest = bytes[position...].prefix(12)
                guard let end = rest.firstIndex(of: UInt8(ascii: ";")) else { throw failure("'&' begins no entity") }
                let name = String(decoding: bytes[position + 1..<end], as: UTF8.self)
                guard let scalar = Self.entity(name) else { throw failure("the entity '\(name)' is not known") }
                result.append(contentsOf: String(scalar).utf8)
                position = end + 1
            } else {
                result.append(bytes[position])
                position += 1
            }
        }
        guard let text = String(validating: result, as: UTF8.self) else { throw failure("the text is not UTF-8") }
        return text
    }

    private static func entity(_ name: String) -> UnicodeScalar? {
        switch name {
        case "amp": return "&"
        case "lt": return "<"
        case "gt": return ">"
        case "quot": return "\""
        case "apos": return "'"
        default:
            if name.hasPrefix("#x") { return UInt32(name.dropFirst(2), radix: 16).flatMap { UnicodeScalar($0) } }
            if name.hasPrefix("#") { return UInt32(name.dropFirst()).flatMap { UnicodeScalar($0) } }
            return nil
        }
    }
}
