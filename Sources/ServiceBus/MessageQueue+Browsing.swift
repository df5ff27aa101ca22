/// Looking at messages, taking deferred ones by number, cancelling scheduled ones, renewing locks.
internal import AMQP
internal import EventLoops

extension MessageQueue {
    /// Up to `count` messages from a number on, in any state, without locking them.
    func peek(from start: UInt64, count: Int, session: String? = nil) -> [MessageRecord] {
        var found: [MessageRecord] = []
        table.forEach(from: start) { sequence, entry in
            guard entry.flags.isDisjoint(with: [.uncommitted, .leaving]) else { return true }
            guard var record = record(sequence) else { return true }
            if let session, record.sessionID != session { return true }
            record.deliveryCount = entry.deliveryCount
            record.state = entry.state
            found.append(record)
            return found.count < count
        }
        return found
    }

    /// Deferred messages by number, all or none.
    func receiveDeferred(
        _ sequences: [UInt64], removes: Bool, session: String?
    ) -> Result<[(MessageRecord, MessageRecord.Delivery)], AMQPError> {
        for sequence in sequences {
            guard let entry = table[sequence], entry.state == .deferred,
                entry.flags.isDisjoint(with: [.uncommitted, .locked, .leaving])
            else { return .failure(.messageNotFound) }
        }
        var found: [(MessageRecord, MessageRecord.Delivery)] = []
        for sequence in sequences {
            guard let record = record(sequence), let entry = table[sequence] else { continue }
            if let session, record.sessionID != session { return .failure(.messageNotFound) }
            var delivery = MessageRecord.Delivery(deliveryCount: UInt32(entry.deliveryCount), isFirst: false)
            delivery.state = .deferred
            if removes {
                leave(sequence)
            } else {
                let lock = lock(sequence, session: session.flatMap { sessions[$0] }, wasDeferred: true)
                table.update(sequence) { $0.flags.insert(.locked) }
                delivery.lockToken = lock.token
                delivery.lockedUntil = lock.until
            }
            found.append((record, delivery))
        }
        return .success(found)
    }

    /// Cancels scheduled messages, all or none.
    func cancelScheduled(_ sequences: [UInt64]) -> AMQPError? {
        for sequence in sequences {
            guard let entry = table[sequence], entry.state == .scheduled, !entry.flags.contains(.leaving) else {
                return .messageNotFound
            }
        }
        for sequence in sequences { leave(sequence) }
        return nil
    }

    /// Holds a message longer; the new end of its lock.
    func renewLock(_ token: AMQPUUID) -> Int64? {
        let sequence = token.low ^ tokenSecret
        guard var lock = locks[sequence], lock.token == token, lock.until > broker.now else { return nil }
        if let session = lock.session { return session.lockedUntil }
        lock.until = broker.now + governing.lockDuration
        locks[sequence] = lock
        note(lock, sequence)
        return lock.until
    }

    /// Removes every message that no receiver holds; how many there were.
    func purge() -> Int {
        var gone: [UInt64] = []
        table.forEach { sequence, entry in
            if entry.flags.isDisjoint(with: [.uncommitted, .locked, .leaving]) { gone.append(sequence) }
            return true
        }
        for sequence in gone { leave(sequence) }
        return gone.count
    }
}
