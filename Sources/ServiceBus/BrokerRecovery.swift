/// From the records of the log to the queues they describe.
internal import AMQP
internal import EventLoops
internal import JSONText

/// Collects records in order, then fills a broker.
struct BrokerRecovery {
    private struct Recovered {
        var name = ""
        var settings = QueueSettings()
        var place = LogPlace.none
        var next: UInt64 = 1
        var isDefined = false
        var sessionStates: [String: (state: [UInt8], place: LogPlace)] = [:]
        var history: [(id: String, at: Int64, place: LogPlace)] = []
    }

    private var queues: [UInt32: Recovered] = [:]
    private var tables: [UInt32: MessageTable] = [:]
    private var nexts: [UInt32: UInt64] = [:]

    /// One record; those that make no sense are passed over, since their group's checksum vouched for them.
    mutating func take(_ bytes: UnsafeRawBufferPointer, _ place: LogPlace) {
        guard bytes.count >= 16 else { return }
        let queue = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        let number = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        switch bytes[0] {
        case RecordKind.message:
            guard bytes.count >= MessageRecord.headLength else { return }
            var entry = MessageEntry(
                expiresAt: Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: 24, as: Int64.self)))
            entry.place = place
            entry.state = MessageState(rawValue: bytes[2]) ?? .active
            entry.deliveryCount = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 52, as: UInt16.self))
            if entry.deliveryCount > 0 { entry.flags.insert(.delivered) }
            tables[queue, default: MessageTable()].insert(number, entry)
            nexts[queue] = max(nexts[queue] ?? 1, number + 1)
        case RecordKind.removal:
            tables[queue]?.remove(number)
            nexts[queue] = max(nexts[queue] ?? 1, number + 1)
        case RecordKind.state where bytes.count >= 20:
            let state = MessageState(rawValue: bytes[2]) ?? .active
            let count = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
            tables[queue]?.update(number) { entry in
                entry.state = state
                entry.deliveryCount = UInt16(truncatingIfNeeded: count)
                entry.flags.insert(.delivered)
            }
        default: takeNamed(bytes, place)
        }
    }

    private mutating func takeNamed(_ bytes: UnsafeRawBufferPointer, _ place: LogPlace) {
        guard let (queue, number, name, rest) = SmallRecord.read(bytes) else { return }
        switch bytes[0] {
        case RecordKind.definition:
            guard let json = try? JSONParser.parse(rest) else { return }
            var recovered = queues[queue] ?? Recovered()
            recovered.name = name
            recovered.settings = QueueSettings(json: json)
            recovered.place = place
            recovered.next = max(recovered.next, number)
            recovered.isDefined = true
            queues[queue] = recovered
        case RecordKind.deletion:
            queues[queue] = nil
            for part in 0..<3 { tables[queue + UInt32(part)] = nil }
        case RecordKind.sessionState:
            // The definition may come later: it moves to the end of the log when its segment is compacted.
            queues[queue, default: Recovered()].sessionStates[name] = number == 0 ? nil : (rest, place)
        case RecordKind.duplicateID:
            queues[queue, default: Recovered()].history.append((name, Int64(bitPattern: number), place))
        default: break
        }
    }

    /// Fills the broker with what was found.
    @EventLoop
    func apply(to broker: Broker) {
        let now = broker.now
        for (id, recovered) in queues.sorted(by: { $0.key < $1.key }) where recovered.isDefined {
            let queue = MessageQueue(
                id: id, name: recovered.name, settings: recovered.settings, broker: broker, parent: nil, kind: .queue)
            broker.register(queue)
            queue.definitionPlace = recovered.place
            broker.count(recovered.place, isLive: true)
            for (name, state) in recovered.sessionStates {
                let session = queue.session(name)
                session.state = state.state
                session.statePlace = state.place
                broker.count(state.place, isLive: true)
            }
            // Those that were copied to save space lie behind younger ones.
            for item in recovered.history.sorted(by: { $0.at < $1.at })
            where item.at >= now - recovered.settings.duplicateDetectionWindow {
                if let copied = queue.history.place(of: item.id) { broker.count(copied, isLive: false) }
                queue.history.remember(item.id, at: item.at, item.place)
                broker.count(item.place, isLive: true)
            }
            for part in [queue, queue.deadLetters, queue.transferDeadLetters].compactMap({ $0 }) {
                part.restore(tables[part.id] ?? MessageTable(), next: max(recovered.next, nexts[part.id] ?? 1))
            }
            if let oldest = queue.history.oldest {
                queue.wake(at: oldest + recovered.settings.duplicateDetectionWindow)
            }
        }
    }
}

extension MessageQueue {
    /// Takes over the messages found in the log.
    fileprivate func restore(_ table: MessageTable, next: UInt64) {
        self.table = table
        nextSequence = next
        table.forEach { sequence, entry in
            count(entry.state, 1)
            byteCount += Int(entry.place.length)
            broker.count(entry.place, isLive: true)
            if requiresSession, let record = record(sequence) { join(sequence, record.sessionID) }
            arm(sequence, entry)
            return true
        }
    }
}
