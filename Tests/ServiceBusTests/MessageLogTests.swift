/// The store: what is committed comes back, what is cut short is cut off, what is broken is told.
import DequeModule
import AMQP
import Diagnostics
import EventLoops
import Glibc
import HostTestSupport
@testable import ServiceBus
import Testing

/// A folder that is removed at the end.
final class Folder {
    let path: String

    init() {
        var template = Array("/tmp/andiron-log.XXXXXX".utf8CString)
        path = String(cString: mkdtemp(&template))
    }

    deinit {
        guard let stream = opendir(path) else { return }
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { unlink(path + "/" + name) }
        }
        closedir(stream)
        rmdir(path)
    }

    var segment: String { path + "/0000000001.log" }
    /// The first MiB of the segment.
    var contents: [UInt8] {
        let descriptor = open(segment, O_RDONLY)
        defer { close(descriptor) }
        return [UInt8](unsafeUninitializedCapacity: 1 << 20) { buffer, count in
            count = max(0, read(descriptor, buffer.baseAddress, 1 << 20))
        }
    }
}

/// Keeps what a broker logged.
final class Records: EventSink, @unchecked Sendable {
    // SAFETY: used on the loop only.
    var messages: [String] = []
    func receive(_ event: HostEvent) {
        if case .record(let message, _) = event.content { messages.append(message) }
    }
}

@EventLoop
func committed(_ log: MessageLog) async -> SystemError? {
    await withUnsafeContinuation { (continuation: UnsafeContinuation<SystemError?, Never>) in
        log.commit { continuation.resume(returning: $0) }
    }
}

@Suite struct MessageLogTests {
    @Test func `what is written beside a record that was read is read as it was written`() async throws {
        try await onTheLoop {
            let folder = Folder()
            let log = try MessageLog(folder: folder.path) { _, _ in }
            // A small group reserves room behind it, in the block that the first read remembers.
            for number in 0..<3 {
                let record = Array("record \(number)".utf8)
                let place = log.append(record)
                #expect(await committed(log) == nil)
                #expect(log.read(place) == record)
            }
            log.close()
        }
    }

    @Test func `records come back in order, group by group`() async throws {
        try await onTheLoop {
            let folder = Folder()
            let log = try MessageLog(folder: folder.path) { _, _ in }
            var places: [LogPlace] = []
            for group in 0..<3 {
                for number in 0..<4 { places.append(log.append(Array("record \(group).\(number)".utf8))) }
                #expect(await committed(log) == nil)
            }
            #expect(log.read(places[5]).map { String(decoding: $0, as: UTF8.self) } == "record 1.1")
            log.close()
            var found: [String] = []
            let again = try MessageLog(folder: folder.path) { bytes, place in
                #expect(place == places[found.count])
                found.append(String(decoding: bytes, as: UTF8.self))
            }
            #expect(found.count == 12 && found[11] == "record 2.3")
            #expect(again.lostByteCount == 0)
            again.close()
        }
    }

    @Test func `a file cut anywhere comes back up to its last whole group`() async throws {
        try await onTheLoop {
            let folder = Folder()
            let log = try MessageLog(folder: folder.path) { _, _ in }
            var ends: [Int] = []
            for group in 0..<5 {
                _ = log.append(Array("group \(group)".utf8))
                _ = await committed(log)
                ends.append(log.segments[0].byteCount)
            }
            let whole = folder.contents
            log.close()
            for cut in stride(from: ends[4], to: 0, by: -3) {
                let descriptor = open(folder.segment, O_WRONLY | O_TRUNC)
                write(descriptor, whole, cut)
                close(descriptor)
                var count = 0
                let again = try MessageLog(folder: folder.path) { _, _ in count += 1 }
                #expect(count == ends.count { $0 <= cut })
                #expect(again.lostByteCount == cut - (ends.last { $0 <= cut } ?? (cut < 16 ? 0 : 16)))
                again.close()
            }
        }
    }

    @Test func `a rotten byte ends what is believed`() async throws {
        try await onTheLoop {
            let folder = Folder()
            let log = try MessageLog(folder: folder.path) { _, _ in }
            for group in 0..<3 {
                _ = log.append(Array("group \(group)".utf8))
                _ = await committed(log)
            }
            let end = log.segments[0].byteCount
            log.close()
            let descriptor = open(folder.segment, O_RDWR)
            var byte: UInt8 = 0x55
            pwrite(descriptor, &byte, 1, end / 2 + 4)
            close(descriptor)
            var count = 0
            let again = try MessageLog(folder: folder.path) { _, _ in count += 1 }
            #expect(count == 1 && again.lostByteCount > 0)
            again.close()
        }
    }

    @Test func `segments follow one another though commits never pause`() async throws {
        try await onTheLoop {
            let folder = Folder()
            let log = try MessageLog(folder: folder.path, segmentByteCount: 4096) { _, _ in }
            var places: [LogPlace] = []
            for round in 0..<40 {
                places.append(log.append([UInt8](repeating: UInt8(round), count: 500)))
                // The next group is begun while this one is being written.
                async let done = committed(log)
                await sleep(for: .milliseconds(1))
                if round % 2 == 0 { places.append(log.append([UInt8](repeating: 200, count: 500))) }
                #expect(await done == nil)
            }
            if log.hasPending { _ = await committed(log) }
            #expect(log.segments.count > 5)
            for place in places { #expect(log.read(place)?.count == 500) }
            log.close()
            var found: [LogPlace] = []
            let again = try MessageLog(folder: folder.path, segmentByteCount: 4096) { _, place in found.append(place) }
            #expect(found == places && again.lostByteCount == 0)
            again.close()
        }
    }

    @Test func `a second opener and a newer format are refused`() async throws {
        try await onTheLoop {
            let folder = Folder()
            let log = try MessageLog(folder: folder.path) { _, _ in }
            #expect(throws: ServiceBusError.storeInUse(folder: folder.path)) {
                try MessageLog(folder: folder.path) { _, _ in }
            }
            _ = log.append([1])
            _ = await committed(log)
            log.close()
            let descriptor = open(folder.segment, O_RDWR)
            var version: UInt32 = 99
            pwrite(descriptor, &version, 4, 8)
            close(descriptor)
            #expect(throws: ServiceBusError.storeTooNew(folder: folder.path, version: 99)) {
                try MessageLog(folder: folder.path) { _, _ in }
            }
        }
    }

    @Test func `records of kinds and lengths of a later version do no harm`() async throws {
        try await onTheLoop {
            let folder = Folder()
            do {
                let broker = try Broker(folder: folder.path, log: .discarding)
                broker.createQueue("q")
                var parts = MessageRecord.Parts()
                parts.messageID = Array("id".utf8)
                var record = [0x00, 0x53, 0x75, 0xA0, 1, 0x61].withUnsafeBytes { MessageRecord(parts, bare: $0) }
                record.expiresAt = .max
                // A later head: four bytes more, told by the head's length.
                record.bytes.insert(contentsOf: [9, 9, 9, 9], at: MessageRecord.headLength)
                record.bytes[66] = UInt8(MessageRecord.headLength + 4)
                broker.queue(named: "q")?.insert(&record)
                _ = broker.append([200, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                await settled(broker)
                broker.close()
            }
            let broker = try Broker(folder: folder.path, log: .discarding)
            let found = broker.queue(named: "Q")?.peek(from: 0, count: 10)
            #expect(found?.count == 1 && found?.first?.messageID == "id")
            broker.close()
        }
    }

    @Test func `old segments go when nothing in them matters, and what matters is carried on`() async throws {
        try await onTheLoop {
            let folder = Folder()
            var broker = try Broker(folder: folder.path, log: .discarding)
            let queue = broker.createQueue("q")
            let body = [UInt8](repeating: 0x61, count: 200_000)
            var message = AMQPMessage(body: .data(body))
            for round in 0..<8 {
                for number in 0..<90 {
                    message.properties.messageID = .string("\(round).\(number)")
                    message.encoded.withUnsafeBytes { #expect(broker.send($0, format: 0, to: queue) == nil) }
                }
                await settled(broker)
                // One message of each round stays.
                for record in queue.peek(from: 0, count: 1000) where !record.messageID.hasSuffix(".7") {
                    queue.leave(record.sequence)
                }
                await settled(broker)
            }
            broker.compactSoon()
            for _ in 0..<100 where queueFiles(folder) > 3 { await sleep(for: .milliseconds(50)) }
            #expect(queueFiles(folder) <= 3)
            #expect(queue.nextSequence == 721)
            broker.close()
            broker = try Broker(folder: folder.path, log: .discarding)
            let found = broker.queue(named: "q")?.peek(from: 0, count: 100) ?? []
            #expect(found.map(\.messageID) == (0..<8).map { "\($0).7" })
            #expect(broker.queue(named: "q")?.nextSequence == 721)
            broker.close()
        }
    }

    @EventLoop
    private func queueFiles(_ folder: Folder) -> Int {
        (1...20).count { access(folder.path + "/" + MessageLog.fileName(UInt32($0)), F_OK) == 0 }
    }
}
