/// Character classes of RFC 9110 and 9112.

enum CharacterTables {
    // One bit for each byte below 64, and for each from 64 to 127.
    private static let lowTokens: UInt64 = 0x03FF_6CFA_0000_0000
    private static let highTokens: UInt64 = 0x57FF_FFFF_C7FF_FFFE

    /// `tchar`: what names and methods are made of.
    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        let bits = byte < 64 ? lowTokens : highTokens
        return byte < 128 && bits >> UInt64(byte & 63) & 1 != 0
    }
}

extension Span<UInt8> {
    /// The first index at or after `start` that holds a control character or DEL (tab is one too).
    @inline(__always)
    func firstControl(from start: Int) -> Int {
        var index = start
        let low = SIMD16<UInt8>(repeating: 0x20)
        let del = SIMD16<UInt8>(repeating: 0x7F)
        while index + 16 <= count {
            // The loop's condition is the bounds check.
            let chunk = unsafe bytes.unsafeLoadUnaligned(fromByteOffset: index, as: SIMD16<UInt8>.self)
            let hit = (chunk .< low) .| (chunk .== del)
            let words = unsafe unsafeBitCast(hit, to: SIMD2<UInt64>.self)
            if words.x != 0 { return index + words.x.trailingZeroBitCount >> 3 }
            if words.y != 0 { return index + 8 + words.y.trailingZeroBitCount >> 3 }
            index += 16
        }
        while index < count {
            let byte = self[index]
            if byte < 0x20 || byte == 0x7F { return index }
            index += 1
        }
        return count
    }
}

/// Lower case of an ASCII letter; other bytes unchanged.
@inline(__always)
public func asciiLowercased(_ byte: UInt8) -> UInt8 {
    byte &- 0x41 < 26 ? byte | 0x20 : byte
}
