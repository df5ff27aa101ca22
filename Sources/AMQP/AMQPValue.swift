/// The types of AMQP 1.0 (specification part 1) as Swift values.

/// Any AMQP value. Sizes of encodings are not kept: a small list and a large one are the same value.
public indirect enum AMQPValue: Equatable, Sendable {
    case null
    case bool(Bool)
    case ubyte(UInt8)
    case ushort(UInt16)
    case uint(UInt32)
    case ulong(UInt64)
    case byte(Int8)
    case short(Int16)
    case int(Int32)
    case long(Int64)
    case float(Float)
    case double(Double)
    /// decimal32, decimal64 or decimal128 as its 4, 8 or 16 bytes.
    case decimal([UInt8])
    case char(UInt32)
    /// Milliseconds since 1970, UTC.
    case timestamp(Int64)
    case uuid(AMQPUUID)
    case binary([UInt8])
    case string(String)
    case symbol(String)
    case list([AMQPValue])
    case map([AMQPPair])
    /// Elements of one type.
    case array([AMQPValue])
    case described(AMQPValue, AMQPValue)
}

/// One entry of a map; order is kept because it carries meaning for some peers.
public struct AMQPPair: Equatable, Sendable {
    public var key: AMQPValue
    public var value: AMQPValue

    public init(_ key: AMQPValue, _ value: AMQPValue) {
        self.key = key
        self.value = value
    }

    /// An entry with a symbol as its key.
    public init(symbol: String, _ value: AMQPValue) { self.init(.symbol(symbol), value) }

    /// An entry with a string as its key.
    public init(string: String, _ value: AMQPValue) { self.init(.string(string), value) }
}

/// Sixteen bytes in network order.
public struct AMQPUUID: Hashable, Sendable, CustomStringConvertible {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// From sixteen bytes in the order of a .NET GUID, as Service Bus writes delivery tags; nil for another length.
    public init?(guidBytes bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        let b = Array(bytes)
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
        var words: (UInt64, UInt64) = (0, 0)
        for index in 0..<8 { words.0 = words.0 << 8 | UInt64(b[order[index]]) }
        for index in 8..<16 { words.1 = words.1 << 8 | UInt64(b[order[index]]) }
        self.init(high: words.0, low: words.1)
    }

    /// The sixteen bytes in the order of a .NET GUID.
    public var guidBytes: (UInt64, UInt64) {
        let first = UInt32(truncatingIfNeeded: high >> 32).byteSwapped
        let second = UInt16(truncatingIfNeeded: high >> 16).byteSwapped
        let third = UInt16(truncatingIfNeeded: high).byteSwapped
        return (UInt64(first) << 32 | UInt64(second) << 16 | UInt64(third), low)
    }

    /// From the usual text with or without hyphens; nil when it is none.
    public init?(_ text: some StringProtocol) {
        let digits = text.utf8.filter { $0 != UInt8(ascii: "-") }
        guard digits.count == 32, let high = UInt64(String(decoding: digits.prefix(16), as: UTF8.self), radix: 16),
            let low = UInt64(String(decoding: digits.suffix(16), as: UTF8.self), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }

    public var description: String {
        let hex = { (value: UInt64, digits: Int) in
            let text = String(value, radix: 16)
            return String(repeating: "0", count: digits - text.count) + text
        }
        return "\(hex(high >> 32, 8))-\(hex(high >> 16 & 0xFFFF, 4))-\(hex(high & 0xFFFF, 4))-"
            + "\(hex(low >> 48, 4))-\(hex(low & 0xFFFF_FFFF_FFFF, 12))"
    }
}

extension AMQPValue {
    /// The text of a string or a symbol.
    public var text: String? {
        switch self {
        case .string(let text), .symbol(let text): text
        default: nil
        }
    }

    /// Any whole number, as far as it fits.
    public var integer: Int64? {
        switch self {
        case .ubyte(let value): Int64(value)
        case .ushort(let value): Int64(value)
        case .uint(let value): Int64(value)
        case .ulong(let value): Int64(exactly: value)
        case .byte(let value): Int64(value)
        case .short(let value): Int64(value)
        case .int(let value): Int64(value)
        case .long(let value), .timestamp(let value): value
        default: nil
        }
    }

    /// The elements of a list or an array.
    public var elements: [AMQPValue]? {
        switch self {
        case .list(let values), .array(let values): values
        default: nil
        }
    }

    /// The entries of a map.
    public var pairs: [AMQPPair]? {
        if case .map(let pairs) = self { pairs } else { nil }
    }

    public var bytes: [UInt8]? {
        if case .binary(let bytes) = self { bytes } else { nil }
    }

    public var uuid: AMQPUUID? {
        if case .uuid(let uuid) = self { uuid } else { nil }
    }

    public var isNull: Bool { self == .null }

    /// The value below a key of a map, whether the key is a symbol or a string.
    public subscript(name: String) -> AMQPValue? {
        pairs?.first { $0.key.text == name }?.value
    }
}
