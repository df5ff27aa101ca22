/// Reading a log from its beginning: every whole group up to the first that is not, and what to cut off.
internal import Glibc

/// What was found in a folder of segments.
struct LogRecovery {
    private(set) var segments: [(number: UInt32, byteCount: Int)] = []
    private(set) var nextGroup: UInt64 = 1
    /// Bytes after the last whole group, now cut off.
    private(set) var lostByteCount = 0

    /// Replays all segments in order and cuts off what follows the last whole group.
    init(folder: String, replay: (UnsafeRawBufferPointer, LogPlace) -> Void) throws(ServiceBusError) {
        var expected: UInt64?
        let numbers = Self.segmentNumbers(folder)
        for (index, number) in numbers.enumerated() {
            if index > 0, number != numbers[index - 1] + 1 {
                throw .store(path: folder, reason: "segment \(numbers[index - 1] + 1) is missing")
            }
            let end = Self.replaySegment(folder: folder, number: number, expectedGroup: expected, replay)
            if end.version > MessageLog.version { throw .storeTooNew(folder: folder, version: end.version) }
            segments.append((number, end.validByteCount))
            if let next = end.nextGroup {
                expected = next
                nextGroup = next
            }
            guard end.validByteCount < end.fileByteCount else { continue }
            // What follows damage was never acknowledged, or cannot be told from what was not.
            lostByteCount += end.fileByteCount - end.validByteCount
            let path = folder + "/" + MessageLog.fileName(number)
            guard truncate(path, end.validByteCount) == 0 else { throw .store(path: path, reason: systemText()) }
            for later in numbers[(index + 1)...] {
                let path = folder + "/" + MessageLog.fileName(later)
                var information = stat()
                if stat(path, &information) == 0 { lostByteCount += Int(information.st_size) }
                rename(path, path + ".lost")
            }
            break
        }
    }

    private static func segmentNumbers(_ folder: String) -> [UInt32] {
        guard let stream = opendir(folder) else { return [] }
        defer { closedir(stream) }
        var numbers: [UInt32] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasSuffix(".log"), let number = UInt32(name.dropLast(4)) { numbers.append(number) }
        }
        return numbers.sorted()
    }

    /// How far a segment is sound.
    struct End {
        var validByteCount = 0
        var fileByteCount = 0
        var nextGroup: UInt64?
        var version: UInt32 = 0
    }

    /// Calls `body` for each record of each whole group, in order.
    static func replaySegment(
        folder: String, number: UInt32, expectedGroup: UInt64?,
        _ body: (UnsafeRawBufferPointer, LogPlace) -> Void
    ) -> End {
        var end = End()
        let descriptor = open(folder + "/" + MessageLog.fileName(number), O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return end }
        defer { close(descriptor) }
        var information = stat()
        guard fstat(descriptor, &information) == 0, information.st_size > 0 else { return end }
        end.fileByteCount = Int(information.st_size)
        guard let mapped = mmap(nil, end.fileByteCount, PROT_READ, MAP_PRIVATE, descriptor, 0), mapped != MAP_FAILED
        else { return end }
        defer { munmap(mapped, end.fileByteCount) }
        madvise(mapped, end.fileByteCount, MADV_SEQUENTIAL)
        let memory = UnsafeRawBufferPointer(start: mapped, count: end.fileByteCount)
        replay(memory, number, expectedGroup, &end, body)
        // Zeros behind the last group are room, not a loss.
        if end.validByteCount > 0, memory[end.validByteCount...].allSatisfy({ $0 == 0 }) {
            end.fileByteCount = end.validByteCount
        }
        return end
    }

    /// The bytes of a segment, for ``replaySegment(folder:number:expectedGroup:_:)`` and the fuzzer.
    static func replay(
        _ memory: UnsafeRawBufferPointer, _ number: UInt32, _ expectedGroup: UInt64?, _ end: inout End,
        _ body: (UnsafeRawBufferPointer, LogPlace) -> Void
    ) {
        guard memory.count >= MessageLog.fileHeader, memory.prefix(8).elementsEqual("ANDIRONQ".utf8) else { return }
        end.version = UInt32(littleEndian: memory.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
        guard end.version <= MessageLog.version else { return }
        end.validByteCount = MessageLog.fileHeader
        var expected = expectedGroup
        var offset = MessageLog.fileHeader
        while offset + MessageLog.groupHeader <= memory.count {
            let magic = UInt32(littleEndian: memory.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            let count = Int(UInt32(littleEndian: memory.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)))
            let group = UInt64(littleEndian: memory.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self))
            let sum = UInt64(littleEndian: memory.loadUnaligned(fromByteOffset: offset + 16, as: UInt64.self))
            let start = offset + MessageLog.groupHeader
            // Numbers may skip after a failed commit, and never go back: an older group would be a stale remnant.
            guard magic == MessageLog.groupMagic, count <= memory.count - start, group >= expected ?? 0 else { return }
            let records = UnsafeRawBufferPointer(rebasing: memory[start..<start + count])
            guard LogGroup.checksum(records, seed: group) == sum else { return }
            var at = 0
            while at + 4 <= count {
                let length = Int(UInt32(littleEndian: records.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
                guard length <= count - at - 4 else { break }
                let place = LogPlace(segment: number, offset: UInt32(start + at + 4), length: UInt32(length))
                body(UnsafeRawBufferPointer(rebasing: records[at + 4..<at + 4 + length]), place)
                at += 4 + length
            }
            offset = start + count
            end.validByteCount = offset
            expected = group + 1
            end.nextGroup = expected
        }
    }
}
