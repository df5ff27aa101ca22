/// The broker against a model: random changes over segments of 64 KiB, commits that fail, restarts; and its accounts audited.
import AMQP
import Diagnostics
import EventLoops
import Glibc
import DequeModule
import HostTestSupport
@testable import ServiceBus
import Testing

/// Numbers that a seed repeats.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// What must be in the broker after every commit that succeeded.
@EventLoop
final class BrokerModel {
    enum Whereabouts: Equatable { case active, deferred, dead }

    private let folder: String
    private let store: String
    private var broker: Broker
    private var generator: SeededGenerator
    private var messages: [String: [String: Whereabouts]] = [:]
    private var sessionStates: [String: [UInt8]] = [:]
    private var sent = 0
    private(set) var failures = 0
    private(set) var highestSegment: UInt32 = 0
    private var highestNumber: UInt64 = 0
    private static let names = ["plain", "unique", "sessions"]
    private static let segment = 64 << 10
    /// Percent of the steps in which no segment can be made.
    private let failing: Int

    init(folder: String, seed: UInt64, failing: Int) throws {
        self.failing = failing
        self.folder = folder
        store = folder + "/store"
        generator = SeededGenerator(state: seed)
        mkdir(store, 0o700)
        broker = try Broker(folder: store, segmentByteCount: Self.segment, log: .discarding)
        for name in Self.names {
            var settings = QueueSettings()
            settings.requiresDuplicateDetection = name == "unique"
            settings.requiresSession = name == "sessions"
            settings.duplicateDetectionWindow = 86_400_000
            broker.createQueue(name, settings)
            messages[name] = [:]
        }
    }

    func close() { broker.close() }

    private func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &generator) < percent }

    private func queue(_ name: String) throws -> MessageQueue { try #require(broker.queue(named: name)) }

    /// Does one thing, now and then while the folder is away so that no segment can be made, and keeps the books.
    func step() async throws {
        let name = Self.names.randomElement(using: &generator) ?? ""
        let isAway = chance(failing)
        if isAway {
            // A segment that was removed must be gone from the folder before that is moved.
            while broker.isCompacting { await sleep(for: .milliseconds(1)) }
            broker.compactor?.stop()
            await offload {}
            rename(store, folder + "/away")
        }
        let after = try change(name)
        let failure = await withUnsafeContinuation { (continuation: UnsafeContinuation<SystemError?, Never>) in
            _ = broker.append(SmallRecord.removal(queue: 0, sequence: 0))
            broker.effects.append(.call { continuation.resume(returning: $0) })
        }
        if isAway { rename(folder + "/away", store) }
        if failure == nil { after() } else { failures += 1 }
        highestSegment = max(highestSegment, broker.storage?.segments.last?.number ?? 0)
        broker.compactSoon()
    }

    private func change(_ name: String) throws -> @EventLoop () -> Void {
        let queue = try queue(name)
        switch Int.random(in: 0..<10, using: &generator) {
        case 0..<4: return send(name, queue)
        case 4..<7: return remove(name, queue)
        case 7: return settle(name, queue)
        case 8 where name == "sessions": return setState(queue)
        default: return takeDeferred(name, queue)
        }
    }

    private func send(_ name: String, _ queue: MessageQueue) -> @EventLoop () -> Void {
        var added: [String] = []
        for _ in 0..<Int.random(in: 1...12, using: &generator) {
            sent += 1
            // Now and then one that is known already, which changes nothing.
            let known = name == "unique" && chance(20) ? messages[name]?.keys.min() : nil
            let id = known ?? "\(name).\(sent)"
            let size = Int.random(in: 10...16_000, using: &generator)
            var message = AMQPMessage(body: .data([UInt8](repeating: 0x61, count: size)))
            message.properties.messageID = .string(id)
            message.properties.groupID = name == "sessions" ? "s\(sent % 5)" : nil
            message.encoded.withUnsafeBytes { #expect(broker.send($0, format: 0, to: queue) == nil) }
            if known == nil { added.append(id) }
        }
        return { [self] in for id in added { messages[name]?[id] = .active } }
    }

    private func some(_ queue: MessageQueue, _ count: Int) -> [(UInt64, String)] {
        var found: [(UInt64, String)] = []
        queue.table.forEach { sequence, entry in
            if entry.isReady, chance(60), let record = queue.record(sequence) {
                found.append((sequence, record.messageID))
            }
            return found.count < count
        }
        return found
    }

    private func remove(_ name: String, _ queue: MessageQueue) -> @EventLoop () -> Void {
        let gone = some(queue, 20)
        for (sequence, _) in gone { queue.leave(sequence) }
        return { [self] in for (_, id) in gone { messages[name]?[id] = nil } }
    }

    /// Locks some and says something about each: abandoned with a change, deferred, or dead.
    private func settle(_ name: String, _ queue: MessageQueue) -> @EventLoop () -> Void {
        var becomes: [String: Whereabouts] = [:]
        for (sequence, id) in some(queue, 6) {
            let lock = queue.lock(sequence, session: nil)
            queue.table.update(sequence) { $0.flags.insert(.locked) }
            let change = [AMQPPair(string: "n", .long(Int64(sequence)))]
            let (disposition, after): (Disposition, Whereabouts) =
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: (.deadLetter(reason: "r", description: nil, change), .dead)
                case 1: (.defer(chance(50) ? change : []), .deferred)
                default: (queue.table[sequence]?.deliveryCount ?? 0 < 8 ? .abandon(change) : .release, .active)
                }
            #expect(queue.settle(lock.token, disposition, then: .call { _ in }) == nil)
            becomes[id] = after
        }
        return { [self] in for (id, after) in becomes { messages[name]?[id] = after } }
    }

    private func takeDeferred(_ name: String, _ queue: MessageQueue) -> @EventLoop () -> Void {
        var numbers: [UInt64] = []
        queue.table.forEach { sequence, entry in
            if entry.state == .deferred, entry.flags.isDisjoint(with: [.locked, .leaving]) { numbers.append(sequence) }
            return numbers.count < 3
        }
        guard case .success(let taken) = queue.receiveDeferred(numbers, removes: true, session: nil) else {
            Issue.record("deferred messages were not given out")
            return {}
        }
        return { [self] in for (record, _) in taken { messages[name]?[record.messageID] = nil } }
    }

    private func setState(_ queue: MessageQueue) -> @EventLoop () -> Void {
        let id = "s\(Int.random(in: 0..<5, using: &generator))"
        let state = chance(70) ? [UInt8](repeating: 7, count: Int.random(in: 0...3000, using: &generator)) : nil
        queue.setState(id, state, then: .call { _ in })
        return { [self] in sessionStates[id] = state }
    }

    /// Closes and opens the store again.
    func restart() async throws {
        broker.compactor = nil
        // Two brokers in one process would both work on the folder.
        while broker.isCompacting || broker.storage?.isWriting ?? false { await sleep(for: .milliseconds(1)) }
        await offload {}
        broker.close()
        broker = try Broker(folder: store, segmentByteCount: Self.segment, log: .discarding)
    }

    /// Compares everything with the model, and the broker's accounts with what they are about.
    func compare() throws {
        var live: [UInt32: Int] = [:]
        var cached = 0
        for name in Self.names {
            let queue = try queue(name)
            var there: [String: Whereabouts] = [:]
            var numbers: Set<UInt64> = []
            live[queue.definitionPlace.segment, default: 0] += Int(queue.definitionPlace.length)
            for (id, session) in queue.sessions {
                let isSame = session.state == sessionStates[id]
                #expect(isSame, "\(id) has \(session.state?.count ?? -1) bytes, not \(sessionStates[id]?.count ?? -1)")
                if session.state != nil {
                    live[session.statePlace.segment, default: 0] += Int(session.statePlace.length)
                }
            }
            for id in sessionStates.keys where name == "sessions" { #expect(queue.sessions[id] != nil) }
            for part in [queue, queue.deadLetters].compactMap({ $0 }) {
                var bytes = 0
                part.table.forEach { sequence, entry in
                    guard let record = part.record(sequence) else {
                        Issue.record(
                            "message \(sequence) of \(part.name) cannot be read: \(entry.place), \(broker.storage?.segments.map(\.number) ?? [])"
                        )
                        return true
                    }
                    #expect(there.updateValue(Self.whereabouts(part, entry), forKey: record.messageID) == nil)
                    #expect(numbers.insert(sequence).inserted && record.sequence == sequence)
                    bytes += entry.record.isEmpty ? Int(entry.place.length) : entry.record.count
                    cached += entry.record.count
                    live[entry.place.segment, default: 0] += Int(entry.place.length)
                    return true
                }
                #expect(part.byteCount == bytes)
                #expect(part.activeCount + part.deferredCount == part.table.count)
            }
            let model = messages[name] ?? [:]
            let wrong = Set(there.keys).union(model.keys).filter { there[$0] != model[$0] }.sorted().map {
                "\($0): \(there[$0].map { "\($0)" } ?? "gone"), not \(model[$0].map { "\($0)" } ?? "gone")"
            }
            #expect(wrong.isEmpty)
            if name == "plain" {
                #expect(queue.nextSequence > highestNumber)
                highestNumber = max(highestNumber, numbers.max() ?? 0)
            }
            for place in queue.history.knownPlaces { live[place.segment, default: 0] += Int(place.length) }
        }
        #expect(broker.cachedByteCount == cached)
        let counted = (broker.storage?.segments ?? []).map(\.liveByteCount)
        let wanted = (broker.storage?.segments ?? []).map { live[$0.number] ?? 0 }
        #expect(counted == wanted, "live bytes by segment")
    }

    /// Takes everything out and waits for the log to shrink.
    func empty() async throws {
        for name in Self.names {
            let queue = try queue(name)
            _ = queue.purge()
            _ = queue.deadLetters?.purge()
        }
        await settled(broker)
        for _ in 0..<200 where broker.storage?.segments.count ?? 0 > 4 {
            broker.compactSoon()
            await sleep(for: .milliseconds(20))
        }
        #expect(broker.storage?.segments.count ?? 0 <= 4)
    }

    private static func whereabouts(_ queue: MessageQueue, _ entry: MessageEntry) -> Whereabouts {
        queue.kind == .deadLetters ? .dead : entry.state == .deferred ? .deferred : .active
    }
}

@Suite struct BrokerModelTests {
    @Test(arguments: [1, 3] as [UInt64])
    func `whatever is done and restarted, the broker is as its answers said`(seed: UInt64) async throws {
        try await onTheLoop {
            let folder = TemporaryFolder()
            let model = try BrokerModel(folder: folder.path, seed: seed, failing: 15)
            for round in 0..<9 {
                for _ in 0..<20 { try await model.step() }
                try model.compare()
                if round % 3 == 2 {
                    try await model.restart()
                    try model.compare()
                }
            }
            #expect(model.failures > 3 && model.highestSegment > 8, "\(model.failures), \(model.highestSegment)")
            try await model.empty()
            model.close()
        }
    }
}
