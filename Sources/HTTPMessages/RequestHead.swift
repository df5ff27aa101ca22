/// The head of one HTTP/1.1 request: method, target, version and fields, as slices of its own bytes.

/// How a request's body is delimited (RFC 9112 §6.3).
public enum BodyFraming: Sendable, Equatable {
    /// There is none.
    case none
    /// This many bytes.
    case length(Int)
    /// Chunked transfer coding.
    case chunked
}

/// Where something lies in the head's bytes.
struct HeadSlice: Sendable {
    var start: UInt32
    var end: UInt32
}

/// One field line.
struct FieldSlice: Sendable {
    var name: HeadSlice
    var value: HeadSlice
}

/// A parsed request head. It owns a copy of its bytes, so it outlives the connection's buffer.
public struct RequestHead: Sendable {
    let bytes: [UInt8]
    let fields: [FieldSlice]
    let methodSlice: HeadSlice
    let pathSlice: HeadSlice
    let querySlice: HeadSlice
    /// 0 or 1, of HTTP/1.x.
    public let minorVersion: Int
    public let framing: BodyFraming
    /// Whether the connection may carry another request after this one.
    public let keepsAlive: Bool
    /// Whether the client waits for `100 Continue` before it sends the body.
    public let expectsContinue: Bool

    /// The method, for example `GET`; case-sensitive.
    public var method: String { text(methodSlice) }
    /// The path of the target, still percent-encoded, without the query.
    public var path: ArraySlice<UInt8> { slice(pathSlice) }
    /// The query after `?`, still encoded; nil when the target has no `?`.
    public var query: ArraySlice<UInt8>? { querySlice.start == 0 ? nil : slice(querySlice) }
    /// How many fields there are.
    public var fieldCount: Int { fields.count }

    private func slice(_ slice: HeadSlice) -> ArraySlice<UInt8> { bytes[Int(slice.start)..<Int(slice.end)] }

    private func text(_ slice: HeadSlice) -> String { String(decoding: self.slice(slice), as: UTF8.self) }

    /// Whether the method is `name`.
    public func isMethod(_ name: StaticString) -> Bool { matches(methodSlice, name, ignoringCase: false) }

    /// The first value of the field `name`, given in lower case; nil when absent.
    public func value(_ name: StaticString) -> String? {
        valueBytes(name).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The first value of the field `name` (lower case) as bytes.
    public func valueBytes(_ name: StaticString) -> ArraySlice<UInt8>? {
        for field in fields where matches(field.name, name, ignoringCase: true) { return slice(field.value) }
        return nil
    }

    /// Whether a field is present; `name` in lower case.
    public func contains(_ name: StaticString) -> Bool { valueBytes(name) != nil }

    /// All fields in order, names as sent.
    public var allFields: [(name: String, value: String)] { fields.map { (text($0.name), text($0.value)) } }

    private func matches(_ slice: HeadSlice, _ name: StaticString, ignoringCase: Bool) -> Bool {
        let length = name.utf8CodeUnitCount
        guard Int(slice.end - slice.start) == length else { return false }
        var index = Int(slice.start)
        for offset in 0..<length {
            let have = ignoringCase ? asciiLowercased(bytes[index]) : bytes[index]
            // The loop's range is the bounds check of the literal.
            let wanted = unsafe name.utf8Start[offset]
            if have != wanted { return false }
            index += 1
        }
        return true
    }
}
