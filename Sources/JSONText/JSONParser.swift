/// Reads JSON text (RFC 8259) into ``JSONValue``, with positions for error messages.

/// Where and why a text is not JSON.
public struct JSONSyntaxError: Error, Equatable, Sendable {
    /// Byte offset of the first character that does not fit.
    public let offset: Int
    /// What was expected or found, in words.
    public let reason: String
}

/// A recursive-descent parser; strict unless comments are allowed.
public struct JSONParser {
    /// How deep arrays and objects may nest.
    public static let depthLimit = 128

    private let bytes: [UInt8]
    private let allowsComments: Bool
    private let allowsTrailingCommas: Bool
    private var position = 0

    private init(_ bytes: [UInt8], allowsComments: Bool, allowsTrailingCommas: Bool) {
        self.bytes = bytes
        self.allowsComments = allowsComments
        self.allowsTrailingCommas = allowsTrailingCommas
    }

    /// Parses a whole document.
    ///
    /// - Parameters:
    ///   - bytes: UTF-8; a byte order mark is skipped.
    ///   - allowsComments: accepts `//` and `/* */`, as the Functions host does in its files.
    ///   - allowsTrailingCommas: accepts a comma behind the last element, as the Service Bus emulator does in its file.
    /// - Throws: the first error, with its offset.
    public static func parse(
        _ bytes: [UInt8], allowsComments: Bool = false, allowsTrailingCommas: Bool = false
    ) throws(JSONSyntaxError) -> JSONValue {
        var parser = JSONParser(bytes, allowsComments: allowsComments, allowsTrailingCommas: allowsTrailingCommas)
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { parser.position = 3 }
        let value = try parser.value(depth: 0)
        try parser.skipSpace()
        guard parser.position == bytes.count else {
            throw JSONSyntaxError(offset: parser.position, reason: "text after the end of the document")
        }
        return value
    }

    private var byte: UInt8? { position < bytes.count ? bytes[position] : nil }

    private func failure(_ reason: String) -> JSONSyntaxError {
        JSONSyntaxError(offset: min(position, bytes.count), reason: reason)
    }

    private mutating func skipSpace() throws(JSONSyntaxError) {
        while let byte {
            switch byte {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            case UInt8(ascii: "/") where allowsComments: try skipComment()
            default: return
            }
        }
    }

    private mutating func skipComment() throws(JSONSyntaxError) {
        let start = position
        let next = position + 1 < bytes.count ? bytes[position + 1] : 0
        if next == UInt8(ascii: "/") {
            while let byte, byte != 0x0A { position += 1 }
        } else if next == UInt8(ascii: "*") {
            position += 2
            while position + 1 < bytes.count,
                bytes[position] != UInt8(ascii: "*") || bytes[position + 1] != UInt8(ascii: "/")
            { position += 1 }
            guard position + 1 < bytes.count else {
                throw JSONSyntaxError(offset: start, reason: "this comment has no end")
            }
            position += 2
        } else {
            throw failure("a '/' that starts no comment")
        }
    }

    private mutating func value(depth: Int) throws(JSONSyntaxError) -> JSONValue {
        try skipSpace()
        guard depth <= Self.depthLimit else { throw failure("nested deeper than \(Self.depthLimit) levels") }
        let start = position
        guard let byte else { throw failure("a value is missing at the end of the text") }
        switch byte {
        case UInt8(ascii: "{"): return JSONValue(.object(try object(depth: depth)), offset: start)
        case UInt8(ascii: "["): return JSONValue(.array(try array(depth: depth)), offset: start)
        case UInt8(ascii: "\""): return JSONValue(.string(try string()), offset: start)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            return JSONValue(.number(try number()), offset: start)
        default:
            if take("true") { return JSONValue(.bool(true), offset: start) }
            if take("false") { return JSONValue(.bool(false), offset: start) }
            if take("null") { return JSONValue(.null, offset: start) }
            throw failure("this is not a JSON value")
        }
    }

    private mutating func take(_ word: StaticString) -> Bool {
        let length = word.utf8CodeUnitCount
        guard position + length <= bytes.count else { return false }
        let matches = "\(word)".utf8.elementsEqual(bytes[position..<(position + length)])
        if matches { position += length }
        return matches
    }

    private mutating func object(depth: Int) throws(JSONSyntaxError) -> [JSONValue.Member] {
        position += 1
        var members: [JSONValue.Member] = []
        try skipSpace()
        if byte == UInt8(ascii: "}") {
            position += 1
            return members
        }
        while true {
            try skipSpace()
            let nameOffset = position
            if allowsTrailingCommas, byte == UInt8(ascii: "}"), !members.isEmpty {
                position += 1
                return members
            }
            guard byte == UInt8(ascii: "\"") else {
                throw failure(
                    byte == UInt8(ascii: "}") && !members.isEmpty
                        ? "a comma before '}'" : "a property name in double quotes was expected here")
            }
            let name = try string()
            try skipSpace()
            guard byte == UInt8(ascii: ":") else { throw failure("a ':' was expected after the property name") }
            position += 1
            let value = try value(depth: depth + 1)
            members.append(.init(name: name, nameOffset: nameOffset, value: value))
            try skipSpace()
            switch byte {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "}"):
                position += 1
                return members
            default: throw failure("a ',' or '}' was expected here; is a comma missing?")
            }
        }
    }

    private mutating func array(depth: Int) throws(JSONSyntaxError) -> [JSONValue] {
        position += 1
        var elements: [JSONValue] = []
        try skipSpace()
        if byte == UInt8(ascii: "]") {
            position += 1
            return elements
        }
        while true {
            elements.append(try value(depth: depth + 1))
            try skipSpace()
            switch byte {
            case UInt8(ascii: ","):
                position += 1
                guard allowsTrailingCommas else { continue }
                try skipSpace()
                guard byte == UInt8(ascii: "]") else { continue }
                position += 1
                return elements
            case UInt8(ascii: "]"):
                position += 1
                return elements
            default: throw failure("a ',' or ']' was expected here; is a comma missing?")
            }
        }
    }

    private mutating func number() throws(JSONSyntaxError) -> String {
        let start = position
        if byte == UInt8(ascii: "-") { position += 1 }
        let firstDigit = byte
        guard digits() > 0 else { throw failure("a digit was expected here") }
        if firstDigit == UInt8(ascii: "0"), bytes[position - 1] != UInt8(ascii: "0") || position - start > 2 {
            let digitsStart = bytes[start] == UInt8(ascii: "-") ? start + 1 : start
            if position - digitsStart > 1 {
                throw JSONSyntaxError(offset: start, reason: "a number may not start with a zero")
            }
        }
        if byte == UInt8(ascii: ".") {
            position += 1
            guard digits() > 0 else { throw failure("a digit was expected after the decimal point") }
        }
        if byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E") {
            position += 1
            if byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-") { position += 1 }
            guard digits() > 0 else { throw failure("a digit was expected in the exponent") }
        }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private mutating func digits() -> Int {
        let start = position
        while let byte, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { position += 1 }
        return position - start
    }

    private mutating func string() throws(JSONSyntaxError) -> String {
        let start = position
        position += 1
        var text: [UInt8] = []
        while let byte {
            switch byte {
            case UInt8(ascii: "\""):
                position += 1
                guard let valid = String(validating: text, as: UTF8.self) else {
                    throw JSONSyntaxError(offset: start, reason: "this string is not valid UTF-8")
                }
                return valid
            case UInt8(ascii: "\\"):
                position += 1
                try escape(into: &text)
            case 0..<0x20:
                throw failure("a control character inside a string; is the closing quote missing?")
            default:
                text.append(byte)
                position += 1
            }
        }
        throw JSONSyntaxError(offset: start, reason: "this string has no closing quote")
    }

    private mutating func escape(into text: inout [UInt8]) throws(JSONSyntaxError) {
        guard let byte else { throw failure("an escape is cut off") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hexadecimal()
            if code >= 0xD800, code < 0xDC00, startsEscapedUnit() {
                position += 2
                let low = try hexadecimal()
                guard low >= 0xDC00, low < 0xE000 else { throw failure("half of a surrogate pair") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("half of a surrogate pair") }
            text.append(contentsOf: Array(Character(scalar).utf8))
        default:
            position -= 1
            throw failure("this escape does not exist in JSON")
        }
    }

    private func startsEscapedUnit() -> Bool {
        position + 1 < bytes.count && bytes[position] == UInt8(ascii: "\\")
            && bytes[position + 1] == UInt8(ascii: "u")
    }

    private mutating func hexadecimal() throws(JSONSyntaxError) -> UInt32 {
        guard position + 4 <= bytes.count,
            bytes[position..<(position + 4)].allSatisfy({ isHexadecimal($0) }),
            let code = UInt32(String(decoding: bytes[position..<(position + 4)], as: UTF8.self), radix: 16)
        else { throw failure("four hexadecimal digits were expected here") }
        position += 4
        return code
    }
}

private func isHexadecimal(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
        UInt8(ascii: "A")...UInt8(ascii: "F"):
        true
    default: false
    }
}
