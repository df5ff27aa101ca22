/// Decodes AMQP values from borrowed bytes. Every read is checked against the end; nothing is trusted.

/// A position in bytes. The bytes must stay valid while the reader is used.
public struct AMQPReader {
    let bytes: UnsafeRawBufferPointer
    /// Where the next value begins.
    public private(set) var position: Int
    let end: Int

    /// Reads all of `bytes`.
    public init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        position = 0
        end = bytes.count
    }

    init(_ bytes: UnsafeRawBufferPointer, from position: Int, to end: Int) {
        self.bytes = bytes
        self.position = position
        self.end = end
    }

    public var isAtEnd: Bool { position >= end }
    var remaining: Int { end - position }

    // MARK: Plain bytes

    @inline(__always)
    private mutating func take(_ count: Int) throws(AMQPError) -> Int {
        guard count >= 0, count <= end - position else { throw .malformed("a value ends past its frame") }
        defer { position += count }
        return position
    }

    @inline(__always)
    mutating func octet() throws(AMQPError) -> UInt8 { bytes[try take(1)] }

    @inline(__always)
    mutating func number<T: FixedWidthInteger>(_: T.Type) throws(AMQPError) -> T {
        let at = try take(MemoryLayout<T>.size)
        return T(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: T.self))
    }

    private mutating func slice(_ count: Int) throws(AMQPError) -> UnsafeRawBufferPointer {
        let at = try take(count)
        return UnsafeRawBufferPointer(rebasing: bytes[at..<at + count])
    }

    private mutating func text(_ count: Int) throws(AMQPError) -> String {
        let slice = try slice(count)
        guard let text = String(validating: slice, as: UTF8.self) else { throw .malformed("a string is not UTF-8") }
        return text
    }

    // MARK: Values

    /// The next value, whatever it is.
    public mutating func value() throws(AMQPError) -> AMQPValue {
        try value(depth: 0)
    }

    private mutating func value(depth: Int) throws(AMQPError) -> AMQPValue {
        let code = try octet()
        return try value(code: code, depth: depth)
    }

    private mutating func value(code: UInt8, depth: Int) throws(AMQPError) -> AMQPValue {
        guard depth < AMQPLimits.nestingDepth else { throw .malformed("values nest deeper than the limit") }
        switch code {
        case 0x00:
            let descriptor = try value(depth: depth + 1)
            return .described(descriptor, try value(depth: depth + 1))
        case 0x40: return .null
        case 0x41: return .bool(true)
        case 0x42: return .bool(false)
        case 0x56: return .bool(try octet() != 0)
        case 0x50: return .ubyte(try octet())
        case 0x60: return .ushort(try number(UInt16.self))
        case 0x70: return .uint(try number(UInt32.self))
        case 0x52: return .uint(UInt32(try octet()))
        case 0x43: return .uint(0)
        case 0x80: return .ulong(try number(UInt64.self))
        case 0x53: return .ulong(UInt64(try octet()))
        case 0x44: return .ulong(0)
        case 0x51: return .byte(try number(Int8.self))
        case 0x61: return .short(try number(Int16.self))
        case 0x71: return .int(try number(Int32.self))
        case 0x54: return .int(Int32(try number(Int8.self)))
        case 0x81: return .long(try number(Int64.self))
        case 0x55: return .long(Int64(try number(Int8.self)))
        case 0x72: return .float(Float(bitPattern: try number(UInt32.self)))
        case 0x82: return .double(Double(bitPattern: try number(UInt64.self)))
        case 0x74: return .decimal(Array(try slice(4)))
        case 0x84: return .decimal(Array(try slice(8)))
        case 0x94: return .decimal(Array(try slice(16)))
        case 0x73: return .char(try number(UInt32.self))
        case 0x83: return .timestamp(try number(Int64.self))
        case 0x98: return .uuid(AMQPUUID(high: try number(UInt64.self), low: try number(UInt64.self)))
        case 0xA0, 0xB0: return .binary(Array(try slice(try length(code))))
        case 0xA1, 0xB1: return .string(try text(try length(code)))
        case 0xA3, 0xB3: return .symbol(try text(try length(code)))
        case 0x45: return .list([])
        case 0xC0, 0xD0: return .list(try elements(code, depth: depth))
        case 0xC1, 0xD1: return .map(try entries(code, depth: depth))
        case 0xE0, 0xF0: return .array(try array(code, depth: depth))
        default: throw .malformed("0x\(String(code, radix: 16)) is no type of AMQP")
        }
    }

    /// The length that precedes variable and compound values: one byte for even high nibbles, else four.
    @inline(__always)
    private mutating func length(_ code: UInt8) throws(AMQPError) -> Int {
        code & 0x10 == 0 ? Int(try octet()) : Int(try number(UInt32.self))
    }

    /// Size and count of a compound; the size must fit, and the count cannot exceed the bytes there are.
    mutating func compound(_ code: UInt8) throws(AMQPError) -> (end: Int, count: Int) {
        let size = try length(code)
        guard size <= remaining else { throw .malformed("a compound value ends past its frame") }
        let stop = position + size
        let count = try length(code)
        guard position <= stop else { throw .malformed("a compound value is smaller than its own count") }
        return (stop, count)
    }

    private mutating func elements(_ code: UInt8, depth: Int) throws(AMQPError) -> [AMQPValue] {
        let (stop, count) = try compound(code)
        guard count <= stop - position else { throw .malformed("a list has more elements than bytes") }
        var inner = AMQPReader(bytes, from: position, to: stop)
        var values: [AMQPValue] = []
        values.reserveCapacity(count)
        for _ in 0..<count { values.append(try inner.value(depth: depth + 1)) }
        guard inner.isAtEnd else { throw .malformed("a list has bytes after its last element") }
        position = stop
        return values
    }

    private mutating func entries(_ code: UInt8, depth: Int) throws(AMQPError) -> [AMQPPair] {
        let values = try elements(code, depth: depth)
        guard values.count % 2 == 0 else { throw .malformed("a map has a key without a value") }
        return stride(from: 0, to: values.count, by: 2).map { AMQPPair(values[$0], values[$0 + 1]) }
    }

    private mutating func array(_ code: UInt8, depth: Int) throws(AMQPError) -> [AMQPValue] {
        let (stop, count) = try compound(code)
        var inner = AMQPReader(bytes, from: position, to: stop)
        let element = try inner.octet()
        guard count <= max(inner.remaining, AMQPLimits.emptyElementCount) else {
            throw .malformed("an array has more elements than bytes")
        }
        var values: [AMQPValue] = []
        if element == 0x00 {
            let descriptor = try inner.value(depth: depth + 1)
            let code = try inner.octet()
            for _ in 0..<count {
                values.append(.described(descriptor, try inner.value(code: code, depth: depth + 1)))
            }
        } else {
            for _ in 0..<count { values.append(try inner.value(code: element, depth: depth + 1)) }
        }
        guard inner.isAtEnd else { throw .malformed("an array has bytes after its last element") }
        position = stop
        return values
    }

    // MARK: Skipping

    /// Passes over one value without building it. The inside of compounds is not looked at.
    public mutating func skip() throws(AMQPError) {
        var depth = 0
        while try octetIsDescription() {
            depth += 1
            guard depth < AMQPLimits.nestingDepth else { throw .malformed("values nest deeper than the limit") }
            try skip()
        }
        let code = try octet()
        switch code >> 4 {
        case 0x4: return
        case 0x5: _ = try take(1)
        case 0x6: _ = try take(2)
        case 0x7: _ = try take(4)
        case 0x8: _ = try take(8)
        case 0x9: _ = try take(16)
        case 0xA, 0xC, 0xE: _ = try take(Int(try octet()))
        case 0xB, 0xD, 0xF: _ = try take(Int(try number(UInt32.self)))
        default: throw .malformed("0x\(String(code, radix: 16)) is no type of AMQP")
        }
    }

    private mutating func octetIsDescription() throws(AMQPError) -> Bool {
        guard position < end else { throw .malformed("a value ends past its frame") }
        guard bytes[position] == 0 else { return false }
        // A descriptor that is itself described would recurse; the standard has no such thing.
        guard position + 1 < end, bytes[position + 1] != 0 else { throw .malformed("a descriptor is described") }
        position += 1
        return true
    }

    // MARK: Composites

    /// The numeric descriptor of the value that follows: 0x00, then a small or full ulong, or its symbol.
    public mutating func descriptor() throws(AMQPError) -> UInt64 {
        guard try octet() == 0x00 else { throw .malformed("a described value was expected") }
        switch try octet() {
        case 0x53: return UInt64(try octet())
        case 0x80: return try number(UInt64.self)
        case 0x44: return 0
        case let code where code == 0xA3 || code == 0xB3:
            let name = try text(try length(code))
            guard let number = AMQPDescriptor.named(name) else { throw .malformed("'\(name)' is no known descriptor") }
            return number
        default: throw .malformed("a descriptor is neither a ulong nor a symbol")
        }
    }

    /// The fields of the list that follows; passes over it.
    public mutating func fields() throws(AMQPError) -> AMQPFields {
        let code = try octet()
        if code == 0x45 { return AMQPFields(reader: AMQPReader(bytes, from: position, to: position), count: 0) }
        guard code == 0xC0 || code == 0xD0 else { throw .malformed("a list of fields was expected") }
        let (stop, count) = try compound(code)
        guard count <= stop - position else { throw .malformed("a list has more elements than bytes") }
        let inner = AMQPReader(bytes, from: position, to: stop)
        position = stop
        return AMQPFields(reader: inner, count: count)
    }
}

/// The fields of a composite in order; absent ones read as nil.
public struct AMQPFields {
    var reader: AMQPReader
    var count: Int

    /// Positions at the next field; false when it is absent or null.
    @inline(__always)
    private mutating func next() throws(AMQPError) -> Bool {
        guard count > 0 else { return false }
        count -= 1
        guard !reader.isAtEnd else { throw .malformed("a list ends before its last element") }
        if reader.bytes[reader.position] == 0x40 {
            _ = try reader.octet()
            return false
        }
        return true
    }

    /// The next field as any value; null when absent.
    public mutating func value() throws(AMQPError) -> AMQPValue {
        try next() ? try reader.value() : .null
    }

    /// Passes over the next field.
    public mutating func skip() throws(AMQPError) {
        if try next() { try reader.skip() }
    }

    @inline(__always)
    mutating func uint() throws(AMQPError) -> UInt32? {
        guard try next() else { return nil }
        switch try reader.octet() {
        case 0x43: return 0
        case 0x52, 0x50: return UInt32(try reader.octet())
        case 0x70: return try reader.number(UInt32.self)
        case 0x60: return UInt32(try reader.number(UInt16.self))
        default: throw .malformed("a uint was expected")
        }
    }

    mutating func ulong() throws(AMQPError) -> UInt64? {
        guard try next() else { return nil }
        switch try reader.octet() {
        case 0x44: return 0
        case 0x53: return UInt64(try reader.octet())
        case 0x80: return try reader.number(UInt64.self)
        default: throw .malformed("a ulong was expected")
        }
    }

    mutating func ubyte() throws(AMQPError) -> UInt8? {
        guard try next() else { return nil }
        guard try reader.octet() == 0x50 else { throw .malformed("a ubyte was expected") }
        return try reader.octet()
    }

    @inline(__always)
    mutating func bool() throws(AMQPError) -> Bool? {
        guard try next() else { return nil }
        switch try reader.octet() {
        case 0x41: return true
        case 0x42: return false
        case 0x56: return try reader.octet() != 0
        default: throw .malformed("a boolean was expected")
        }
    }

    mutating func text() throws(AMQPError) -> String? {
        let value = try value()
        if value.isNull { return nil }
        guard let text = value.text else { throw .malformed("a string was expected") }
        return text
    }

    mutating func binary() throws(AMQPError) -> [UInt8]? {
        let value = try value()
        if value.isNull { return nil }
        guard let bytes = value.bytes else { throw .malformed("binary was expected") }
        return bytes
    }
}
