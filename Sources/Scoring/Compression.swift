/// Compressing what goes to Redis, by Zstandard.
internal import CZstd

/// Whole values in memory.
enum Compression {
    /// Zstandard's fastest ordinary level: JSON shrinks to a third or less, at some hundred megabytes a second.
    private static let level: Int32 = 1

    /// The compressed bytes; nil when that saves less than a tenth.
    static func compressed(_ bytes: [UInt8]) -> [UInt8]? {
        let bound = ZSTD_compressBound(bytes.count)
        let result = [UInt8](unsafeUninitializedCapacity: bound) { memory, count in
            let written = bytes.withUnsafeBytes {
                ZSTD_compress(memory.baseAddress, bound, $0.baseAddress, $0.count, level)
            }
            count = ZSTD_isError(written) == 0 ? written : 0
        }
        return result.isEmpty || result.count > bytes.count - bytes.count / 10 ? nil : result
    }

    /// The bytes that were compressed, exactly `count` of them; nil for anything else, so that nothing grows past what
    /// its head says.
    static func decompressed(_ bytes: UnsafeRawBufferPointer, count: Int) -> [UInt8]? {
        guard count > 0 else { return nil }
        var isWhole = false
        let result = [UInt8](unsafeUninitializedCapacity: count) { memory, length in
            let written = ZSTD_decompress(memory.baseAddress, count, bytes.baseAddress, bytes.count)
            isWhole = ZSTD_isError(written) == 0 && written == count
            length = isWhole ? count : 0
        }
        return isWhole ? result : nil
    }
}
