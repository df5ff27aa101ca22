/// A dictionary whose keys are numbers that count up, or are few.

/// Hashes by one multiplication. The standard hash resists keys chosen by an enemy; numbers of our own counters are
/// none, handles and channels are limited in number, and that hash would cost a tenth of a message.
public struct NumberMap<Value>: Sequence {
    @usableFromInline
    struct Key: Hashable {
        @usableFromInline
        let number: UInt64

        @inlinable
        init(_ number: UInt64) { self.number = number }

        @inlinable
        func hash(into hasher: inout Hasher) { hasher.combine(number) }

        // Hashable's own requirement, which the standard library implements for its numbers too.
        // swift-format-ignore: NoLeadingUnderscores
        @inlinable
        func _rawHashValue(seed: Int) -> Int {
            Int(truncatingIfNeeded: (number &* 0x9E37_79B9_7F4A_7C15) >> 20)
        }
    }

    @usableFromInline
    var values: [Key: Value] = [:]

    @inlinable
    public init() {}

    @inlinable
    public var count: Int { values.count }

    @inlinable
    public var isEmpty: Bool { values.isEmpty }

    @inlinable
    public subscript(number: UInt64) -> Value? {
        get { values[Key(number)] }
        set { values[Key(number)] = newValue }
    }

    /// Takes a value out.
    @inlinable
    @discardableResult
    public mutating func remove(_ number: UInt64) -> Value? { values.removeValue(forKey: Key(number)) }

    /// In no order.
    @inlinable
    public func makeIterator() -> some IteratorProtocol<(number: UInt64, value: Value)> {
        values.lazy.map { (number: $0.key.number, value: $0.value) }.makeIterator()
    }
}
