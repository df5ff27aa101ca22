/// The store's files: an append-only log in segments, one checksummed group per commit
/// (docs/decisions/ tells why it is not SQLite).
///
/// A segment begins with 16 bytes: "ANDIRONQ", the format's version (u32), its number (u32). Groups follow:
///
///     u32 magic   u32 byte count of the records   u64 number   u64 checksum of number and records
///     records: u32 length, bytes
///
/// All numbers are little-endian. A group is there as a whole or not at all.
internal import DequeModule
internal import EventLoops
internal import Glibc

/// Where a record lies.
struct LogPlace: Equatable {
    var segment: UInt32
    var offset: UInt32
    var length: UInt32

    /// In memory only.
    static let none = LogPlace(segment: 0, offset: 0, length: 0)
}

/// The log as the loop sees it: appends in memory, commits by a thread of the pool, one at a time.
@EventLoop
final class MessageLog {
    /// A segment is followed by another when it has this many bytes.
    static let segmentByteCount = 64 << 20
    nonisolated static let version: UInt32 = 1
    nonisolated static let groupMagic: UInt32 = 0x3147_4E41
    nonisolated static let fileHeader = 16
    nonisolated static let groupHeader = 24

    struct Segment {
        let number: UInt32
        var byteCount: Int
        /// Bytes of records that still matter.
        var liveByteCount = 0
    }

    let folder: String
    private let segmentLimit: Int
    private(set) var segments: Deque<Segment> = []
    private var descriptors: [UInt32: Int32] = [:]
    private let lockDescriptor: Int32
    private var groupNumber: UInt64
    private var pending: [UInt8] = []
    private var spare: [UInt8] = []
    /// Where the pending group will lie.
    private var base = 0
    private(set) var isWriting = false
    /// How far the current segment is on disk, in zeros beyond its groups.
    private var reserved = 0
    /// Segments' files that are to go, in order.
    private var removed: Deque<String> = []
    private var isUnlinking = false
    private var blocks: [(segment: UInt32, index: Int, bytes: [UInt8])] = []
    /// Bytes cut off at the end of the log when it was opened; 0 for a clean one.
    let lostByteCount: Int

    private static let smallGroupByteCount = 16 << 10
    private static let reservedByteCount = 512 << 10
    private static let blockByteCount = 256 << 10
    private static let blockCount = 8

    /// Opens the log, or makes one, and replays its records in order.
    ///
    /// - Throws: ``ServiceBusError`` when another process has it, it is too new, or the disk fails.
    init(
        folder: String, segmentByteCount: Int = MessageLog.segmentByteCount,
        replay: (UnsafeRawBufferPointer, LogPlace) -> Void
    ) throws(ServiceBusError) {
        self.folder = folder
        segmentLimit = segmentByteCount
        lockDescriptor = open(folder + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lockDescriptor >= 0 else { throw .store(path: folder, reason: systemText()) }
        guard flock(lockDescriptor, LOCK_EX | LOCK_NB) == 0 else {
            Glibc.close(lockDescriptor)
            throw .storeInUse(folder: folder)
        }
        let recovered: LogRecovery
        do throws(ServiceBusError) {
            recovered = try LogRecovery(folder: folder, replay: replay)
        } catch {
            Glibc.close(lockDescriptor)
            throw error
        }
        lostByteCount = recovered.lostByteCount
        groupNumber = recovered.nextGroup
        segments = Deque(recovered.segments.map { Segment(number: $0.number, byteCount: $0.byteCount) })
        if segments.isEmpty { segments.append(Segment(number: 1, byteCount: 0)) }
        base = segments[segments.count - 1].byteCount
    }

    isolated deinit { close() }

    /// Closes the files; the store can be opened again.
    func close() {
        for descriptor in descriptors.values { Glibc.close(descriptor) }
        descriptors = [:]
        if !isClosed { Glibc.close(lockDescriptor) }
        isClosed = true
    }

    private var isClosed = false

    // MARK: Writing

    /// Bytes not yet handed to the disk.
    var pendingByteCount: Int { pending.count }
    var hasPending: Bool { !pending.isEmpty }

    /// Adds a record to the next group and returns where it will lie.
    @inline(__always)
    func append(_ record: [UInt8]) -> LogPlace {
        if pending.isEmpty { beginGroup() }
        let count = UInt32(record.count)
        withUnsafeBytes(of: count.littleEndian) { pending.append(contentsOf: $0) }
        let place = LogPlace(
            segment: segments[segments.count - 1].number, offset: UInt32(base + pending.count), length: count)
        pending.append(contentsOf: record)
        return place
    }

    private func beginGroup() {
        if base >= segmentLimit {
            segments.append(Segment(number: segments[segments.count - 1].number + 1, byteCount: 0))
            base = 0
            reserved = 0
        }
        if base == 0 {
            pending.append(contentsOf: "ANDIRONQ".utf8)
            append(Self.version)
            append(segments[segments.count - 1].number)
        }
        append(Self.groupMagic)
        append(UInt32(0))
        append(groupNumber)
        append(UInt64(0))
        groupNumber += 1
    }

    private func append<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { pending.append(contentsOf: $0) }
    }

    /// Writes the pending group and tells when it is on disk, or that it is not.
    ///
    /// When it fails the log is as it was before, and what was appended meanwhile is dropped too: call
    /// ``dropPending()`` and undo both.
    func commit(_ done: @escaping @EventLoop (SystemError?) -> Void) {
        guard !isWriting, !pending.isEmpty else { return }
        isWriting = true
        var group = spare
        spare = []
        swap(&group, &pending)
        let start = base == 0 ? Self.fileHeader : 0
        LogGroup.seal(&group, at: start)
        let segment = segments[segments.count - 1].number
        let offset = base
        base += group.count
        let descriptor = descriptors[segment] ?? openSegment(segment)
        // Small groups go into room that is on disk already: then a sync need not change the file's length.
        let end = offset + group.count
        let room = end > reserved && group.count < Self.smallGroupByteCount ? Self.reservedByteCount : 0
        if room > 0 { reserved = end + room }
        offload { [group] in
            LogGroup.write(group, reserving: room, to: descriptor, at: offset)
        } then: { [self] failure in
            isWriting = false
            if let failure {
                // A segment begun meanwhile goes with what was appended to it.
                while segments[segments.count - 1].number != segment { segments.removeLast() }
                base = offset
                reserved = 0
                done(SystemError(errno: failure, call: "write", subject: path(segment)))
                return
            }
            segments[Int(segment - segments[0].number)].byteCount = offset + group.count
            if group.capacity < 1 << 20 {
                spare = group
                spare.removeAll(keepingCapacity: true)
            }
            done(nil)
        }
    }

    /// Forgets what was appended after a group that failed.
    func dropPending() { pending.removeAll(keepingCapacity: true) }

    nonisolated static func fileName(_ segment: UInt32) -> String {
        let digits = String(segment)
        return String(repeating: "0", count: max(0, 10 - digits.count)) + digits + ".log"
    }

    private func path(_ segment: UInt32) -> String { folder + "/" + Self.fileName(segment) }

    private func openSegment(_ segment: UInt32) -> Int32 {
        let descriptor = open(path(segment), O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        if descriptor >= 0 { descriptors[segment] = descriptor }
        return descriptor
    }

    // MARK: Reading

    /// A record's bytes; nil when the disk fails. Reads ahead, as messages are mostly taken in order.
    func read(_ place: LogPlace) -> [UInt8]? {
        let start = Int(place.offset)
        let length = Int(place.length)
        let index = start / Self.blockByteCount
        guard (start + length - 1) / Self.blockByteCount == index else { return readDirectly(place) }
        let within = start - index * Self.blockByteCount
        if let block = blocks.first(where: {
            $0.segment == place.segment && $0.index == index && $0.bytes.count >= within + length
        }) {
            return Array(block.bytes[within..<within + length])
        }
        guard let descriptor = descriptor(of: place.segment) else { return nil }
        // Behind what is committed lies reserved room, which must not be remembered as what will be there.
        let size = min(Self.blockByteCount, committedByteCount(of: place.segment) - index * Self.blockByteCount)
        guard size >= within + length else { return readDirectly(place) }
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            count = max(0, pread(descriptor, buffer.baseAddress, size, index * Self.blockByteCount))
        }
        guard bytes.count >= within + length else { return nil }
        blocks.removeAll { $0.segment == place.segment && $0.index == index }
        if blocks.count >= Self.blockCount { blocks.removeFirst() }
        blocks.append((place.segment, index, bytes))
        return Array(bytes[within..<within + length])
    }

    private func committedByteCount(of segment: UInt32) -> Int {
        guard let first = segments.first?.number, segment >= first, Int(segment - first) < segments.count else {
            return 0
        }
        return segments[Int(segment - first)].byteCount
    }

    private func readDirectly(_ place: LogPlace) -> [UInt8]? {
        guard let descriptor = descriptor(of: place.segment) else { return nil }
        let length = Int(place.length)
        let bytes = [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
            count = max(0, pread(descriptor, buffer.baseAddress, length, Int(place.offset)))
        }
        return bytes.count == length ? bytes : nil
    }

    private func descriptor(of segment: UInt32) -> Int32? {
        if let open = descriptors[segment] { return open }
        let descriptor = openSegment(segment)
        return descriptor >= 0 ? descriptor : nil
    }

    // MARK: Space

    /// Counts a record as needed, or no longer.
    func count(_ place: LogPlace, isLive: Bool) {
        guard place.length > 0, let first = segments.first?.number, place.segment >= first else { return }
        let index = Int(place.segment - first)
        guard index < segments.count else { return }
        segments[index].liveByteCount += isLive ? Int(place.length) : -Int(place.length)
    }

    /// The oldest segment, when so little in it matters that copying that is worth its space.
    var segmentToCompact: UInt32? {
        guard segments.count > 1 else { return nil }
        let first = segments[0]
        let total = segments.reduce(0) { $0 + $1.byteCount }
        let live = segments.reduce(0) { $0 + $1.liveByteCount }
        let isSparse = first.liveByteCount < first.byteCount / 4
        return isSparse || total > 2 * live + 2 * segmentLimit ? first.number : nil
    }

    /// The records of a segment with their places, for copying what still matters.
    ///
    /// - Returns: whether all of it could be read; if not, it must stay.
    func scan(_ segment: UInt32, _ body: (UnsafeRawBufferPointer, LogPlace) -> Void) -> Bool {
        let end = LogRecovery.replaySegment(folder: folder, number: segment, expectedGroup: nil, body)
        return segments.first { $0.number == segment }?.byteCount == end.validByteCount
    }

    /// Removes the oldest segment; nothing in it may matter any more, and that must be on disk.
    func removeFirstSegment() {
        guard segments.count > 1 else { return }
        let number = segments.removeFirst().number
        if let descriptor = descriptors.removeValue(forKey: number) { Glibc.close(descriptor) }
        blocks.removeAll { $0.segment == number }
        removed.append(path(number))
        unlinkRemoved()
    }

    /// Unlinks one after the other. What cannot be unlinked keeps the later ones: without them it would bring back
    /// messages whose removal they tell, and a gap looks like a lost segment. It is tried again with the next.
    private func unlinkRemoved() {
        guard !isUnlinking, let path = removed.first else { return }
        isUnlinking = true
        offload { [folder] in
            unlink(path) == 0 || (errno == ENOENT && access(folder, F_OK) == 0)
        } then: { [self] isGone in
            isUnlinking = false
            guard isGone else { return }
            removed.removeFirst()
            unlinkRemoved()
        }
    }
}

/// The system's words for `errno`.
func systemText() -> String { String(cString: strerror(errno)) }
