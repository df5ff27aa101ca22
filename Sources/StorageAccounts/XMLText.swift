/// The little XML that the storage services speak: written by hand, read element by element.

/// Writes XML; texts are escaped, and what XML cannot hold is percent-encoded, as the service does.
public struct XMLWriter {
    public private(set) var text = "<?xml version=\"1.0\" encoding=\"utf-8\"?>"

    public init() {}

    public mutating func open(_ tag: String) { text += "<\(tag)>" }

    /// The tag may have attributes when it is opened; here it is the bare name.
    public mutating func close(_ tag: String) { text += "</\(tag)>" }

    public mutating func element(_ tag: String, _ content: String) {
        text += content.isEmpty ? "<\(tag) />" : "<\(tag)>\(Self.escaped(content))</\(tag)>"
    }

    /// A blob's name, which may have characters that XML has no way to write.
    public mutating func name(_ name: String) {
        if name.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0xFFFE && $0.value != 0xFFFF }) {
            element("Name", name)
        } else {
            text += "<Name Encoded=\"true\">\(Self.escaped(percentEncodedName(name)))</Name>"
        }
    }

    public static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "\r": result += "&#13;"
            default:
                if scalar.value >= 0x20 || scalar == "\n" || scalar == "\t" { result.unicodeScalars.append(scalar) }
            }
        }
        return result
    }

    public var bytes: [UInt8] { Array(text.utf8) }
}

private func percentEncodedName(_ name: String) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var bytes: [UInt8] = []
    for byte in name.utf8 {
        if byte < 0x20 || byte == 0x25 || byte >= 0x7F {
            bytes += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        } else {
            bytes.append(byte)
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// One element and its text, in the order of a document.
public struct XMLElement: Equatable, Sendable {
    public let name: String
    /// Text directly inside it, entities replaced.
    public let text: String

    /// Whether the text is percent-encoded, as a blob's name can be.
    public let isEncoded: Bool

    public init(name: String, text: String, isEncoded: Bool = false) {
        self.name = name
        self.text = text
        self.isEncoded = isEncoded
    }
}

/// Reads a document as a flat list of its leaf elements; enough for block lists, messages and metadata.
public enum XMLReader {
    /// Elements a document may have.
    public static let elementLimit = 100_000

    /// - Returns: nil when tags do not match, or an entity is unknown.
    public static func leaves(of bytes: [UInt8]) -> [XMLElement]? {
        var input = bytes[...]
        if input.starts(with: [0xEF, 0xBB, 0xBF]) { input = input.dropFirst(3) }
        var found: [XMLElement] = []
        var stack: [(name: [UInt8], hasChildren: Bool, isEncoded: Bool)] = []
        var text: [UInt8] = []
        while let byte = input.first {
            guard byte == UInt8(ascii: "<") else {
                text.append(byte)
                input = input.dropFirst()
                continue
            }
            if input.starts(with: "<![CDATA[".utf8) { return nil }
            if input.starts(with: "<?".utf8) || input.starts(with: "<!".utf8) {
                guard let end = input.firstIndex(of: UInt8(ascii: ">")) else { return nil }
                input = input[(end + 1)...]
                continue
            }
            guard let end = input.firstIndex(of: UInt8(ascii: ">")), found.count < elementLimit else { return nil }
            var tag = input[(input.startIndex + 1)..<end]
            input = input[(end + 1)...]
            if tag.first == UInt8(ascii: "/") {
                guard let (name, hasChildren, isEncoded) = stack.popLast(),
                    Array(name) == Array(trimmed(tag.dropFirst()))
                else {
                    return nil
                }
                if !hasChildren {
                    guard let decoded = decode(text) else { return nil }
                    found.append(
                        XMLElement(name: String(decoding: name, as: UTF8.self), text: decoded, isEncoded: isEncoded))
                }
                text = []
                continue
            }
            let isEmpty = tag.last == UInt8(ascii: "/")
            if isEmpty { tag = tag.dropLast() }
            let name = Array(tag.prefix { $0 != 0x20 && $0 != 0x09 && $0 != 0x0A && $0 != 0x0D })
            guard !name.isEmpty, stack.count < 32 else { return nil }
            if let last = stack.indices.last { stack[last].hasChildren = true }
            text = []
            if isEmpty {
                found.append(XMLElement(name: String(decoding: name, as: UTF8.self), text: ""))
            } else {
                let attributes = String(decoding: tag.dropFirst(name.count), as: UTF8.self)
                stack.append((name, false, attributes.contains("Encoded=\"true\"")))
            }
        }
        return stack.isEmpty ? found : nil
    }

    private static func trimmed(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var bytes = bytes
        while let last = bytes.last, last == 0x20 || last == 0x0A || last == 0x0D || last == 0x09 {
            bytes = bytes.dropLast()
        }
        return bytes
    }

    private static func decode(_ bytes: [UInt8]) -> String? {
        guard bytes.contains(UInt8(ascii: "&")) else { return String(validating: bytes, as: UTF8.self) }
        var result: [UInt8] = []
        var rest = bytes[...]
        while let byte = rest.first {
            guard byte == UInt8(ascii: "&") else {
                result.append(byte)
                rest = rest.dropFirst()
                continue
            }
            guard let end = rest.prefix(12).firstIndex(of: UInt8(ascii: ";")) else { return nil }
            let name = String(decoding: rest[(rest.startIndex + 1)..<end], as: UTF8.self)
            rest = rest[(end + 1)...]
            switch name {
            case "amp": result.append(UInt8(ascii: "&"))
            case "lt": result.append(UInt8(ascii: "<"))
            case "gt": result.append(UInt8(ascii: ">"))
            case "quot": result.append(UInt8(ascii: "\""))
            case "apos": result.append(UInt8(ascii: "'"))
            default:
                guard name.hasPrefix("#") else { return nil }
                let digits = name.dropFirst()
                let number = digits.hasPrefix("x") ? UInt32(digits.dropFirst(), radix: 16) : UInt32(digits)
                guard let number, number > 0, let scalar = Unicode.Scalar(number) else { return nil }
                result += Array(String(Character(scalar)).utf8)
            }
        }
        return String(validating: result, as: UTF8.self)
    }
}
