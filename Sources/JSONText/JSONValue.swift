/// A parsed JSON document whose every value knows where it stood in the text.

/// One JSON value.
public struct JSONValue: Sendable {
    /// What a value is.
    public indirect enum Content: Sendable {
        case null
        case bool(Bool)
        /// The number's digits as written, so that nothing is lost.
        case number(String)
        case string(String)
        case array([JSONValue])
        case object([Member])
    }

    /// One name and value of an object.
    public struct Member: Sendable {
        public let name: String
        /// Byte offset of the name's opening quote.
        public let nameOffset: Int
        public let value: JSONValue

        public init(name: String, nameOffset: Int, value: JSONValue) {
            self.name = name
            self.nameOffset = nameOffset
            self.value = value
        }
    }

    public let content: Content
    /// Byte offset of the value's first character.
    public let offset: Int

    public init(_ content: Content, offset: Int = 0) {
        self.content = content
        self.offset = offset
    }

    /// The value of `name`, exact spelling; nil when absent or when this is no object.
    public subscript(name: String) -> JSONValue? {
        members?.first { $0.name == name }?.value
    }

    /// The members, when this is an object.
    public var members: [Member]? {
        if case .object(let members) = content { members } else { nil }
    }

    /// The elements, when this is an array.
    public var elements: [JSONValue]? {
        if case .array(let elements) = content { elements } else { nil }
    }

    /// The text, when this is a string.
    public var string: String? {
        if case .string(let text) = content { text } else { nil }
    }

    /// The truth, when this is one.
    public var bool: Bool? {
        if case .bool(let value) = content { value } else { nil }
    }

    /// The whole number, when this is one that fits.
    public var integer: Int? {
        if case .number(let digits) = content { Int(digits) } else { nil }
    }

    /// The number, when this is one.
    public var double: Double? {
        if case .number(let digits) = content { Double(digits) } else { nil }
    }

    /// True for `null`.
    public var isNull: Bool {
        if case .null = content { true } else { false }
    }

    /// What a person would call it: `a string`, `an object`.
    public var kindName: String {
        switch content {
        case .null: "null"
        case .bool: "true or false"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}
