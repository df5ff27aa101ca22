/// The log's space: what matters in old segments is copied, and they are removed.
internal import AMQP
internal import EventLoops

extension Broker {
    /// Between two segments that are copied, so that clients are served.
    private static let compactionPause = Duration.milliseconds(50)

    /// Before a segment that could not be read or copied is tried again.
    private static let retryPause = Duration.seconds(1)

    /// Looks whether a segment is worth copying, once in a while.
    func compactSoon() {
        guard let compactor, !compactor.isActive, !isCompacting, storage?.segmentToCompact != nil else { return }
        compactor.start(after: Self.compactionPause)
    }

    /// Copies what matters out of the oldest segment when that is little, then removes it.
    func compact() {
        guard let storage, !isCompacting, let segment = storage.segmentToCompact else { return }
        // A group under way may belong to the segment before the last; older ones are complete.
        guard storage.segments.count > 2 || !storage.isWriting else { return compactSoon() }
        isCompacting = true
        let isWhole = storage.scan(segment) { bytes, place in _ = relocate(bytes, place) }
        effects.append(
            .call { [self] failure in
                isCompacting = false
                guard failure == nil, isWhole, storage.segments.first?.number == segment else {
                    // Without a descriptor, or with a disk that fails: what was not seen may matter.
                    compactor?.start(after: Self.retryPause)
                    return
                }
                storage.removeFirstSegment()
                compactSoon()
            })
        turnEnd?.schedule()
    }

    /// Appends a record again when it still matters.
    private func relocate(_ bytes: UnsafeRawBufferPointer, _ place: LogPlace) -> Bool {
        guard bytes.count >= 16 else { return false }
        let id = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        guard let queue = queue(id: id) else { return false }
        switch bytes[0] {
        case RecordKind.message:
            let sequence = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            // One that is being removed has its removal in the log already: written again behind that it would come back.
            // Should that commit fail, this one fails with it, and the segment stays.
            guard let entry = queue.table[sequence], entry.place == place, !entry.flags.contains(.leaving) else {
                return false
            }
            var record = MessageRecord(bytes: Array(bytes))
            record.state = entry.state
            record.deliveryCount = entry.deliveryCount
            queue.relocate(sequence, record.bytes)
        case RecordKind.definition where queue.definitionPlace == place: define(queue)
        case RecordKind.sessionState, RecordKind.duplicateID:
            guard let (_, number, name, _) = SmallRecord.read(bytes) else { return false }
            if bytes[0] == RecordKind.sessionState, let session = queue.sessions[name], session.statePlace == place {
                move(place, Array(bytes)) { [weak session] old, new in
                    if let session, session.statePlace == old { session.statePlace = new }
                }
            } else if queue.history.place(of: name) == place {
                move(place, SmallRecord.named(RecordKind.duplicateID, queue: id, number: number, name: name)) {
                    queue.history.relocate(name, from: $0, to: $1)
                }
            } else {
                return false
            }
        default: return false
        }
        return true
    }

    /// Writes a small record again; `update` changes who points at it, and back when the commit fails.
    private func move(
        _ old: LogPlace, _ bytes: [UInt8], _ update: @escaping @EventLoop (_ from: LogPlace, _ to: LogPlace) -> Void
    ) {
        let new = append(bytes)
        count(old, isLive: false)
        count(new, isLive: true)
        update(old, new)
        effects.append(
            .call { [self] failure in
                guard failure != nil else { return }
                count(new, isLive: false)
                count(old, isLive: true)
                update(new, old)
            })
    }
}
