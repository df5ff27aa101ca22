/// Response header fields, kept in the form they are sent in.

/// A list of fields as bytes of field lines.
public struct HTTPFields: Sendable {
    /// The field lines, each ended by CR LF.
    public private(set) var bytes: [UInt8] = []

    public init() {}

    /// Makes room for `byteCount` bytes at once.
    public mutating func reserve(_ byteCount: Int) { bytes.reserveCapacity(byteCount) }

    /// Writes field lines that are known to be well-formed in place.
    @inline(__always)
    public mutating func appendLines(_ write: (inout [UInt8]) -> Void) { write(&bytes) }

    /// Adds a field.
    ///
    /// - Returns: false, adding nothing, when the name is not a token or the value holds a control
    ///   character: a response must not be split by what a function returns.
    @discardableResult
    public mutating func add(_ name: String, _ value: String) -> Bool {
        guard !name.isEmpty, name.utf8.allSatisfy({ CharacterTables.isToken($0) }),
            value.utf8.allSatisfy({ $0 == 0x09 || ($0 >= 0x20 && $0 != 0x7F) })
        else { return false }
        bytes.append(contentsOf: name.utf8)
        bytes.append(UInt8(ascii: ":"))
        bytes.append(UInt8(ascii: " "))
        bytes.append(contentsOf: value.utf8)
        bytes.append(0x0D)
        bytes.append(0x0A)
        return true
    }

    /// Adds fields that are known to be well-formed.
    public mutating func append(lines: [UInt8]) { bytes.append(lines) }

    /// Whether a field of that name is there, in any case.
    public func contains(_ name: String) -> Bool { value(of: name) != nil }

    /// The first value of a field, in any case of the name.
    public func value(of name: String) -> String? {
        for line in bytes.split(separator: 0x0A) {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon - line.startIndex == name.utf8.count else {
                continue
            }
            let same = zip(line[..<colon], name.utf8).allSatisfy { asciiLowercased($0) == asciiLowercased($1) }
            if same { return String(decoding: line[(colon + 2)...].dropLast(), as: UTF8.self) }
        }
        return nil
    }
}
