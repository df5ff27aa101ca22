/// The encodings of AMQP's fixed-width types (specification part 1.6).

/// Writes the encodings of typed fields, in whatever takes bytes.
public protocol AMQPEncoder {
    mutating func octet(_ value: UInt8)
    /// In network byte order.
    mutating func number<T: FixedWidthInteger>(_ value: T)
}

extension AMQPEncoder {
    @inline(__always)
    public mutating func null() { octet(0x40) }

    @inline(__always)
    public mutating func bool(_ value: Bool) { octet(value ? 0x41 : 0x42) }

    @inline(__always)
    public mutating func ubyte(_ value: UInt8) {
        octet(0x50)
        octet(value)
    }

    @inline(__always)
    public mutating func uint(_ value: UInt32) {
        if value == 0 {
            octet(0x43)
        } else if value < 256 {
            octet(0x52)
            octet(UInt8(value))
        } else {
            octet(0x70)
            number(value)
        }
    }

    @inline(__always)
    public mutating func uint(_ value: UInt32?) {
        if let value { uint(value) } else { null() }
    }

    public mutating func ulong(_ value: UInt64) {
        if value == 0 {
            octet(0x44)
        } else if value < 256 {
            octet(0x53)
            octet(UInt8(value))
        } else {
            octet(0x80)
            number(value)
        }
    }

    @inline(__always)
    public mutating func long(_ value: Int64) {
        octet(0x81)
        number(value)
    }

    @inline(__always)
    public mutating func timestamp(_ value: Int64) {
        octet(0x83)
        number(value)
    }

    @inline(__always)
    public mutating func uuid(_ value: AMQPUUID) {
        octet(0x98)
        number(value.high)
        number(value.low)
    }
}
