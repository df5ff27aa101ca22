/// The name of one invocation: a random (version 4) UUID, lower case, as the Functions host prints it.
internal import Glibc

/// 16 random bytes.
public struct InvocationID: Hashable, Sendable, CustomStringConvertible {
    private let high: UInt64
    private let low: UInt64

    /// A new one from `generator`.
    public init(from generator: inout RandomBytes) {
        high = generator.next() & 0xFFFF_FFFF_FFFF_0FFF | 0x4000
        low = generator.next() & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    }

    public var description: String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(36)
        for index in 0..<32 {
            if index == 8 || index == 12 || index == 16 || index == 20 { text.append(UInt8(ascii: "-")) }
            let word = index < 16 ? high : low
            text.append(digits[Int(word >> UInt64(60 - 4 * (index % 16)) & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}

/// Random words from the system, fetched many at a time: one system call per 16 invocations.
public struct RandomBytes: RandomNumberGenerator, Sendable {
    private var pool = [UInt64](repeating: 0, count: 32)
    private var used = 32

    public init() {}

    public mutating func next() -> UInt64 {
        if used == pool.count {
            // 256 bytes is the most one call gives.
            pool.withUnsafeMutableBytes { _ = getentropy($0.baseAddress, $0.count) }
            used = 0
        }
        used += 1
        return pool[used - 1]
    }
}
