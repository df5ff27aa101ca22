/// Encodes AMQP values at the end of a byte array, in place.

/// Appends encodings to bytes it owns; take ``bytes`` when done.
public struct AMQPWriter: AMQPEncoder {
    public var bytes: [UInt8]

    public init(_ bytes: [UInt8] = []) { self.bytes = bytes }

    // MARK: Plain bytes

    @inline(__always)
    public mutating func octet(_ value: UInt8) { bytes.append(value) }

    @inline(__always)
    public mutating func number<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }

    /// Overwrites four bytes written earlier.
    @inline(__always)
    mutating func patch(_ value: Int, at offset: Int) {
        let value = UInt32(truncatingIfNeeded: value).bigEndian
        bytes.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: offset, as: UInt32.self) }
    }

    // MARK: Typed fields

    public mutating func string(_ text: some StringProtocol) { variable(0xA1, text.utf8) }

    public mutating func symbol(_ text: some StringProtocol) { variable(0xA3, text.utf8) }

    public mutating func binary(_ value: some Collection<UInt8>) { variable(0xA0, value) }

    private mutating func variable(_ code: UInt8, _ value: some Collection<UInt8>) {
        let count = value.count
        if count < 256 {
            octet(code)
            octet(UInt8(count))
        } else {
            octet(code | 0x10)
            number(UInt32(count))
        }
        bytes.append(contentsOf: value)
    }

    // MARK: Composites

    /// A described list of `count` fields, which `body` writes, nulls included.
    public mutating func composite(_ descriptor: UInt64, count: Int, _ body: (inout AMQPWriter) -> Void) {
        octet(0x00)
        ulong(descriptor)
        compound(0xD0, count: count, body)
    }

    /// A list, map (count of keys and values together) whose contents `body` writes.
    public mutating func compound(_ code: UInt8, count: Int, _ body: (inout AMQPWriter) -> Void) {
        octet(code)
        let start = bytes.count
        number(UInt32(0))
        number(UInt32(count))
        body(&self)
        patch(bytes.count - start - 4, at: start)
    }

    // MARK: Any value

    /// The smallest encoding of any value.
    public mutating func value(_ value: AMQPValue) {
        switch value {
        case .null: null()
        case .bool(let value): bool(value)
        case .ubyte(let value): ubyte(value)
        case .ushort(let value): fixed(0x60, value)
        case .uint(let value): uint(value)
        case .ulong(let value): ulong(value)
        case .byte(let value): fixed(0x51, value)
        case .short(let value): fixed(0x61, value)
        case .int(let value): fixed(0x71, value)
        case .long(let value): long(value)
        case .float(let value): fixed(0x72, value.bitPattern)
        case .double(let value): fixed(0x82, value.bitPattern)
        case .decimal(let value):
            octet(value.count == 4 ? 0x74 : value.count == 8 ? 0x84 : 0x94)
            bytes.append(contentsOf: value)
        case .char(let value): fixed(0x73, value)
        case .timestamp(let value): timestamp(value)
        case .uuid(let value): uuid(value)
        case .binary(let value): binary(value)
        case .string(let value): string(value)
        case .symbol(let value): symbol(value)
        case .list(let values):
            if values.isEmpty { return octet(0x45) }
            compound(0xD0, count: values.count) { for value in values { $0.value(value) } }
        case .map(let pairs): map(pairs)
        case .array(let values): array(values)
        case .described(let descriptor, let value):
            octet(0x00)
            self.value(descriptor)
            self.value(value)
        }
    }

    /// A map; an empty one is a map, not null.
    public mutating func map(_ pairs: [AMQPPair]) {
        compound(0xD1, count: pairs.count * 2) { writer in
            for pair in pairs {
                writer.value(pair.key)
                writer.value(pair.value)
            }
        }
    }

    private mutating func fixed<T: FixedWidthInteger>(_ code: UInt8, _ value: T) {
        octet(code)
        number(value)
    }

    /// All elements in the encoding of the first one's type.
    private mutating func array(_ values: [AMQPValue]) {
        compound(0xF0, count: values.count) { writer in
            guard var first = values.first else { return writer.null() }
            if case .described(let descriptor, let inner) = first {
                writer.octet(0x00)
                writer.value(descriptor)
                first = inner
            }
            var one = AMQPWriter()
            one.wide(first)
            writer.octet(one.bytes[0])
            for value in values {
                one.bytes.removeAll(keepingCapacity: true)
                if case .described(_, let inner) = value { one.wide(inner) } else { one.wide(value) }
                writer.bytes.append(contentsOf: one.bytes.dropFirst())
            }
        }
    }

    /// The encoding of a type that fits all its values: array elements share one.
    private mutating func wide(_ value: AMQPValue) {
        switch value {
        case .bool(let value): fixed(0x56, value ? 1 : 0 as UInt8)
        case .uint(let value): fixed(0x70, value)
        case .ulong(let value): fixed(0x80, value)
        case .binary(let value): long(0xB0, value)
        case .string(let value): long(0xB1, Array(value.utf8))
        case .symbol(let value): long(0xB3, Array(value.utf8))
        case .list(let values): compound(0xD0, count: values.count) { for value in values { $0.value(value) } }
        default: self.value(value)
        }
    }

    private mutating func long(_ code: UInt8, _ value: [UInt8]) {
        octet(code)
        number(UInt32(value.count))
        bytes.append(contentsOf: value)
    }
}
