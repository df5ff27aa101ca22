/// One group of the log as bytes: its checksum, and its way to the disk.
internal import Glibc

/// Sealing and writing; runs off the loop where it blocks.
enum LogGroup {
    /// Fills in byte count and checksum of the group that begins at `start`.
    static func seal(_ bytes: inout [UInt8], at start: Int) {
        bytes.withUnsafeMutableBytes { memory in
            let body = start + MessageLog.groupHeader
            memory.storeBytes(of: UInt32(memory.count - body).littleEndian, toByteOffset: start + 4, as: UInt32.self)
            let number = memory.loadUnaligned(fromByteOffset: start + 8, as: UInt64.self)
            let sum = checksum(UnsafeRawBufferPointer(rebasing: memory[body...]), seed: UInt64(littleEndian: number))
            memory.storeBytes(of: sum.littleEndian, toByteOffset: start + 16, as: UInt64.self)
        }
    }

    /// Writes and waits for the disk. On failure the file is cut back, and the reason returned.
    static func write(_ group: [UInt8], reserving room: Int = 0, to descriptor: Int32, at offset: Int) -> Int32? {
        guard descriptor >= 0 else { return ENOSPC }
        var done = 0
        var bytes = group
        if room > 0 { bytes.append(contentsOf: repeatElement(0, count: room)) }
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress?.advanced(by: done), $0.count - done, offset + done)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let reason = cutBack(descriptor, offset, count == 0 ? ENOSPC : errno)
                // There may be room for the group itself.
                return room > 0 ? write(group, to: descriptor, at: offset) : reason
            }
            done += count
        }
        guard fdatasync(descriptor) == 0 else { return cutBack(descriptor, offset, errno) }
        return nil
    }

    private static func cutBack(_ descriptor: Int32, _ offset: Int, _ reason: Int32) -> Int32 {
        ftruncate(descriptor, offset)
        return reason
    }

    /// A 64-bit checksum, eight bytes at a time: finds torn and rotten groups, is no protection against malice.
    static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt64) -> UInt64 {
        var sum = seed &* 0x9E37_79B9_7F4A_7C15 ^ UInt64(bytes.count)
        var index = 0
        while index + 8 <= bytes.count {
            sum = mix(sum, UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)))
            index += 8
        }
        var tail: UInt64 = 0
        while index < bytes.count {
            tail = tail << 8 | UInt64(bytes[index])
            index += 1
        }
        sum = mix(sum, tail)
        return sum ^ (sum >> 32)
    }

    @inline(__always)
    private static func mix(_ sum: UInt64, _ word: UInt64) -> UInt64 {
        let product = (sum ^ word).multipliedFullWidth(by: 0xFF51_AFD7_ED55_8CCD)
        return product.low ^ (product.high &+ 0xC4CE_B9FE_1A85_EC53)
    }
}
