/// What happens by time alone, with the broker's clock moved by hand; and what a commit that fails leaves behind.
import AMQP
import Diagnostics
import EventLoops
import Glibc
import HeapModule
import HostTestSupport
@testable import ServiceBus
import Testing

/// Takes nothing: its session is what counts.
@EventLoop
final class SessionHolder: MessageReceiver {
    let isPeekLock = true
    var session: MessageSession?
    var canTake: Bool { false }
    var hasLost = false
    func take(_ record: MessageRecord, _ delivery: MessageRecord.Delivery) {}
    func reserve() {}
    func cancelReservation() {}
    func sessionLockWasLost() { hasLost = true }
}

/// Waits until everything asked for so far is on disk, or failed.
@EventLoop
func settled(_ broker: Broker) async {
    await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
        _ = broker.append(SmallRecord.removal(queue: 0, sequence: 0))
        broker.effects.append(.call { _ in continuation.resume() })
    }
}

@EventLoop
func send(_ broker: Broker, _ queue: MessageQueue, id: String, session: String? = nil, timeToLive: UInt32? = nil) {
    var message = AMQPMessage(body: .data([1]))
    message.properties.messageID = .string(id)
    message.properties.groupID = session
    message.header.timeToLive = timeToLive
    message.encoded.withUnsafeBytes { #expect(broker.send($0, format: 0, to: queue) == nil) }
}

@Suite struct QueueTimeTests {
    @Test func `dead letters are told, the first of a queue at once and the others as a number`() async throws {
        try await onTheLoop {
            let records = Records()
            let broker = try Broker(folder: nil, log: EventLog([records]))
            let names = ["a", "b"]
            for name in names {
                var settings = QueueSettings()
                settings.deadLettersOnExpiration = true
                let queue = broker.createQueue(name, settings)
                for _ in 0..<(name == "a" ? 1000 : 1) { send(broker, queue, id: "m", timeToLive: 1000) }
            }
            await settled(broker)
            broker.clockOffset += 2000
            for name in names { broker.queue(named: name)?.tick(broker.now) }
            await settled(broker)
            let first = names.map {
                "message 1 of '\($0)' went to its dead letters: TTLExpiredException; "
                    + "`andiron queue dead-letters \($0)` shows them"
            }
            #expect(records.messages == first)
            broker.deadLetterNotes.sumUp()
            broker.deadLetterNotes.sumUp()
            #expect(
                records.messages == first + [
                    "999 more messages of 'a' went to its dead letters; `andiron queue dead-letters a` shows them"
                ])
        }
    }

    @Test func `a hundred thousand idle sessions wait for nothing`() async throws {
        try await onTheLoop {
            let broker = try Broker(folder: nil, log: .discarding)
            var settings = QueueSettings()
            settings.requiresSession = true
            let queue = broker.createQueue("q", settings)
            for number in 0..<100_000 { send(broker, queue, id: "m", session: "s\(number)") }
            await settled(broker)
            #expect(queue.sessions.count == 100_000)
            #expect(queue.wakesAt == .max && broker.alarmAt == .max)
            // One that is held is the only one with a time, however often it is renewed.
            let holder = SessionHolder()
            queue.accept("s7", for: holder, wait: 0) {
                holder.session = $0
            } refused: { _ in
            }
            let held = try #require(holder.session)
            for _ in 0..<1000 {
                broker.clockOffset += 1000
                _ = queue.renew(held)
            }
            #expect(queue.sessionLocks.count == 1)
            let begin = monotonicNanoseconds()
            for _ in 0..<1000 { broker.tick() }
            #expect(monotonicNanoseconds() - begin < 200_000_000, "a thousand looks at the clock walk nothing")
            #expect(!holder.hasLost)
            broker.clockOffset += 61_000
            broker.tick()
            #expect(holder.hasLost && held.receiver == nil)
            #expect(queue.sessionLocks.isEmpty && queue.wakesAt == .max && broker.alarmAt == .max)
            broker.close()
        }
    }

    @Test func `a session whose time is over is taken from its holder by whoever asks first`() async throws {
        try await onTheLoop {
            let broker = try Broker(folder: nil, log: .discarding)
            var settings = QueueSettings()
            settings.requiresSession = true
            let queue = broker.createQueue("q", settings)
            send(broker, queue, id: "m", session: "s")
            await settled(broker)
            let (first, second) = (SessionHolder(), SessionHolder())
            queue.accept("s", for: first, wait: 0) {
                first.session = $0
            } refused: { _ in
            }
            var refusal: AMQPError?
            queue.accept("s", for: second, wait: 0) {
                second.session = $0
            } refused: {
                refusal = $0
            }
            #expect(refusal?.condition == "com.microsoft:session-cannot-be-locked" && second.session == nil)
            broker.clockOffset += 60_001
            queue.accept("s", for: second, wait: 0) {
                second.session = $0
            } refused: { _ in
            }
            #expect(first.hasLost && second.session?.receiver === second)
            broker.close()
        }
    }

    @Test func `an unused queue goes after the shortest time allowed, a used one stays`() async throws {
        try await onTheLoop {
            let folder = TemporaryFolder()
            var broker = try Broker(folder: folder.path, log: .discarding)
            var settings = QueueSettings()
            settings.autoDeleteOnIdle = 300_000
            for name in ["unused", "sent-to", "received-from", "scheduled"] { broker.createQueue(name, settings) }
            broker.createQueue("kept")
            let (sentTo, receivedFrom) = (broker.queue(named: "sent-to"), broker.queue(named: "received-from"))
            let holder = SessionHolder()
            receivedFrom?.deadLetters?.add(holder)
            await settled(broker)
            broker.clockOffset += 200_000
            if let sentTo { send(broker, sentTo, id: "m") }
            if let queue = broker.queue(named: "scheduled") {
                var message = AMQPMessage(body: .data([1]))
                message.messageAnnotations = [
                    AMQPPair(symbol: "x-opt-scheduled-enqueue-time", .timestamp(broker.now + 3_600_000))
                ]
                message.encoded.withUnsafeBytes { #expect(broker.send($0, format: 0, to: queue) == nil) }
            }
            await settled(broker)
            broker.tick()
            #expect(broker.allQueues.count == 5)
            broker.clockOffset += 100_000
            broker.tick()
            #expect(broker.allQueues.map(\.name) == ["kept", "received-from", "scheduled", "sent-to"])
            receivedFrom?.deadLetters?.remove(holder)
            broker.clockOffset += 100_000
            broker.tick()
            #expect(broker.queue(named: "sent-to") != nil)
            broker.clockOffset += 100_000
            broker.tick()
            #expect(broker.allQueues.map(\.name) == ["kept", "received-from", "scheduled"])
            broker.clockOffset += 100_000
            broker.tick()
            #expect(broker.allQueues.map(\.name) == ["kept", "scheduled"])
            await settled(broker)
            broker.close()
            broker = try Broker(folder: folder.path, log: .discarding)
            #expect(broker.allQueues.map(\.name) == ["kept", "scheduled"])
            broker.close()
        }
    }

    @Test func `time wakes a queue when something is due, and not before`() async throws {
        try await onTheLoop {
            let broker = try Broker(folder: nil, log: .discarding)
            var settings = QueueSettings()
            settings.deadLettersOnExpiration = true
            let queue = broker.createQueue("q", settings)
            let start = broker.now
            send(broker, queue, id: "short", timeToLive: 50_000)
            send(broker, queue, id: "long", timeToLive: 90_000_000)
            await settled(broker)
            #expect((start + 50_000...broker.now + 50_000).contains(queue.wakesAt) && broker.alarmAt == queue.wakesAt)
            broker.clockOffset += 50_001
            broker.tick()
            await settled(broker)
            #expect(queue.activeCount == 1 && queue.deadLetters?.activeCount == 1)
            #expect(queue.wakesAt >= start + 90_000_000)
            broker.close()
        }
    }

    @Test func `what a failed commit was told is undone, and what must be is written later`() async throws {
        try await onTheLoop {
            let folder = TemporaryFolder()
            let store = folder.path + "/store"
            mkdir(store, 0o700)
            var broker = try Broker(folder: store, log: .discarding)
            // No segment can be made while the folder is elsewhere.
            rename(store, folder.path + "/away")
            var settings = QueueSettings()
            settings.requiresDuplicateDetection = true
            let queue = broker.createQueue("needed", settings)
            var failure: SystemError?
            broker.createQueue("asked for") { failure = $0 }
            send(broker, queue, id: "m")
            await settled(broker)
            #expect(failure != nil && broker.queue(named: "asked for") == nil)
            #expect(queue.activeCount == 0 && queue.table.count == 0 && queue.byteCount == 0)
            rename(folder.path + "/away", store)
            // The sender tries again with the same id, and is not taken for its own double.
            send(broker, queue, id: "m")
            await settled(broker)
            #expect(queue.activeCount == 1)
            send(broker, queue, id: "m")
            await settled(broker)
            #expect(queue.activeCount == 1)
            broker.close()
            broker = try Broker(folder: store, log: .discarding)
            #expect(broker.allQueues.map(\.name) == ["needed"])
            #expect(broker.queue(named: "needed")?.activeCount == 1)
            broker.close()
        }
    }
}
