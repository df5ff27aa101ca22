/// Encodes what every message has: a few fixed fields whose greatest length is known beforehand.

/// Writes into memory it borrows. Growing an array value by value costs more than the values.
public struct AMQPCursor: AMQPEncoder {
    private let memory: UnsafeMutableRawBufferPointer
    public private(set) var count = 0

    init(_ memory: UnsafeMutableRawBufferPointer) { self.memory = memory }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }

    @inline(__always)
    public mutating func octet(_ value: UInt8) {
        memory[count] = value
        count += 1
    }

    @inline(__always)
    public mutating func number<T: FixedWidthInteger>(_ value: T) {
        precondition(count + MemoryLayout<T>.size <= memory.count)
        memory.storeBytes(of: value.bigEndian, toByteOffset: count, as: T.self)
        count += MemoryLayout<T>.size
    }

    @inline(__always)
    public mutating func bytes(_ source: UnsafeRawBufferPointer) {
        precondition(count + source.count <= memory.count)
        UnsafeMutableRawBufferPointer(rebasing: memory[count...]).copyMemory(from: source)
        count += source.count
    }

    // MARK: Values

    /// A symbol of fewer than 256 bytes.
    @inline(__always)
    public mutating func symbol(_ text: StaticString) {
        octet(0xA3)
        octet(UInt8(text.utf8CodeUnitCount))
        bytes(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    // MARK: Composites

    /// A descriptor below 256; the described value follows.
    @inline(__always)
    public mutating func described(_ descriptor: UInt64) {
        octet(0x00)
        octet(0x53)
        octet(UInt8(descriptor))
    }

    /// Begins a list (`0xC0`) or map (`0xC1`) of fewer than 256 bytes; ``end(_:)`` takes what it returns.
    @inline(__always)
    public mutating func begin(_ code: UInt8, count elements: UInt8) -> Int {
        octet(code)
        octet(0)
        octet(elements)
        return count - 2
    }

    @inline(__always)
    public mutating func end(_ start: Int) { memory[start] = UInt8(count - start - 1) }
}

extension AMQPWriter {
    /// Appends what `body` writes, at most `limit` bytes.
    @inline(__always)
    public mutating func append(upTo limit: Int, _ body: (inout AMQPCursor) -> Void) {
        withUnsafeTemporaryAllocation(byteCount: limit, alignment: 8) { memory in
            var cursor = AMQPCursor(memory)
            body(&cursor)
            bytes.append(contentsOf: cursor.bytes)
        }
    }

    /// Overwrites the four bytes at `offset` with a size or count.
    public mutating func overwrite(_ value: Int, at offset: Int) { patch(value, at: offset) }
}
