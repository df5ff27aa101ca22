/// What receivers say about messages they hold, and what follows.
internal import AMQP
internal import EventLoops

/// What a receiver wants done with a message.
enum Disposition {
    case complete
    /// Back to the queue; counts as a failed delivery.
    case abandon([AMQPPair])
    /// Back to the queue as if never delivered.
    case release
    case `defer`([AMQPPair])
    case deadLetter(reason: String?, description: String?, [AMQPPair])
}

extension MessageQueue {
    /// Settles a locked message. The effect runs when the change is on disk.
    ///
    /// - Returns: why it could not be, for example because the lock is lost.
    func settle(_ token: AMQPUUID, _ disposition: Disposition, then effect: CommitEffect?) -> AMQPError? {
        let sequence = token.low ^ tokenSecret
        guard let lock = locks[sequence], lock.token == token, isHeld(lock) else { return .lockLost }
        switch disposition {
        case .complete:
            locks[sequence] = nil
            leave(sequence)
        case .abandon(let changes):
            locks[sequence] = nil
            returnMessage(sequence, wasDeferred: lock.wasDeferred, changes: changes)
        case .release:
            locks[sequence] = nil
            table.update(sequence) { $0.flags.remove(.locked) }
            if !lock.wasDeferred { makeReady(sequence) }
        case .defer(let changes):
            locks[sequence] = nil
            if !lock.wasDeferred { change(sequence, to: .deferred) }
            table.update(sequence) { $0.flags.remove(.locked) }
            rewrite(sequence, changes)
            if !lock.wasDeferred { broker.effects.append(.call { [self] in if $0 != nil { undoDeferral(sequence) } }) }
        case .deadLetter(let reason, let description, let changes):
            guard kind == .queue else {
                return AMQPError("amqp:not-allowed", "a message in a dead-letter queue cannot be dead-lettered again")
            }
            locks[sequence] = nil
            var properties = changes
            if let reason { properties.append(AMQPPair(string: "DeadLetterReason", .string(reason))) }
            if let description {
                properties.append(AMQPPair(string: "DeadLetterErrorDescription", .string(description)))
            }
            deadLetter(sequence, properties)
        }
        if let effect { broker.then(effect) }
        trimLockOrder()
        return nil
    }

    /// The deferral could not be written: the receiver is told so, and the message comes again.
    private func undoDeferral(_ sequence: UInt64) {
        guard let entry = table[sequence], entry.state == .deferred, !entry.flags.contains(.locked) else { return }
        count(.deferred, -1)
        count(.active, 1)
        table.update(sequence) { $0.state = .active }
        makeReady(sequence)
    }

    private func isHeld(_ lock: MessageLock) -> Bool {
        if let session = lock.session { return session.lockedUntil > broker.now && session.receiver != nil }
        return lock.until > broker.now
    }

    private func trimLockOrder() {
        while let first = lockOrder.first, locks[first.sequence]?.until != first.at { lockOrder.removeFirst() }
    }

    /// Removes a message for good.
    func leave(_ sequence: UInt64) {
        table.update(sequence) { entry in
            entry.flags.remove(.locked)
            entry.flags.insert(.leaving)
        }
        broker.appendRemoval(queue: id, sequence: sequence)
        broker.then(.left(self, sequence...sequence))
    }

    /// The removal is on disk, or the message is still there.
    func hasLeft(_ sequence: UInt64, _ isOnDisk: Bool) {
        if isOnDisk { return forget(sequence) }
        table.update(sequence) { $0.flags.remove(.leaving) }
        guard let entry = table[sequence] else { return }
        let retry = broker.now + Self.retryDelay
        switch entry.state {
        case .active:
            makeReady(sequence)
            guard entry.expiresAt != .max else { return }
            expiring.add(Due(at: max(entry.expiresAt, retry), sequence: sequence), wanted: table.count) {
                table[$0.sequence] != nil
            }
            wake(at: max(entry.expiresAt, retry))
        case .scheduled:
            scheduled.add(Due(at: retry, sequence: sequence), wanted: scheduledCount) {
                table[$0.sequence]?.state == .scheduled
            }
            wake(at: retry)
        case .deferred: break
        }
    }

    /// A failed delivery: once more from the front, or to the dead letters when it was one too many.
    func returnMessage(_ sequence: UInt64, wasDeferred: Bool, changes: [AMQPPair] = []) {
        guard let entry = table[sequence] else { return }
        let failures = entry.deliveryCount &+ 1
        table.update(sequence) { entry in
            entry.flags.remove(.locked)
            entry.deliveryCount = failures
        }
        if kind == .queue, Int(failures) >= settings.maxDeliveryCount {
            let description = "Message could not be consumed after \(settings.maxDeliveryCount) delivery attempts."
            return giveUp(sequence, reason: "MaxDeliveryCountExceeded", description, changes)
        }
        if changes.isEmpty {
            noteState(sequence)
        } else {
            rewrite(sequence, changes)
        }
        if !wasDeferred { makeReady(sequence) }
    }

    /// Writes state and delivery count; nobody waits for that.
    private func noteState(_ sequence: UInt64) {
        guard let entry = table[sequence] else { return }
        _ = broker.append(
            SmallRecord.state(
                queue: id, sequence: sequence, entry.state, deliveryCount: entry.deliveryCount))
    }

    func change(_ sequence: UInt64, to state: MessageState) {
        guard let old = table[sequence]?.state else { return }
        count(old, -1)
        count(state, 1)
        table.update(sequence) { $0.state = state }
        noteState(sequence)
    }

    /// Writes the message again with changed application properties.
    private func rewrite(_ sequence: UInt64, _ changes: [AMQPPair]) {
        guard !changes.isEmpty, let old = record(sequence), let entry = table[sequence] else { return }
        var record = old.adding(changes)
        record.state = entry.state
        record.deliveryCount = entry.deliveryCount
        relocate(sequence, record.bytes)
    }

    /// Moves a message to the end of the log, with the bytes given.
    func relocate(_ sequence: UInt64, _ bytes: [UInt8]) {
        guard let entry = table[sequence], !entry.flags.contains(.uncommitted) else { return }
        let place = broker.append(bytes)
        broker.count(entry.place, isLive: false)
        broker.count(place, isLive: true)
        let growth = bytes.count - (entry.record.isEmpty ? Int(entry.place.length) : entry.record.count)
        byteCount += growth
        // Until it is on disk it cannot be read from there.
        broker.cachedByteCount += bytes.count - entry.record.count
        table.update(sequence) { entry in
            entry.place = place
            entry.record = bytes
        }
        broker.effects.append(
            .call { [self] failure in
                guard let now = table[sequence], now.place == place else { return }
                if failure == nil {
                    guard !broker.isInMemory, broker.cachedByteCount > ServiceBusLimits.cachedByteCount else { return }
                    broker.cachedByteCount -= now.record.count
                    table.update(sequence) { $0.record = [] }
                    return
                }
                broker.count(place, isLive: false)
                broker.count(entry.place, isLive: true)
                byteCount -= growth
                broker.cachedByteCount += entry.record.count - now.record.count
                table.update(sequence) { now in
                    now.place = entry.place
                    now.record = entry.record
                }
            })
    }

    // MARK: Dead letters

    /// Moves a message to the dead letters, or where these are forwarded to; in one commit.
    func deadLetter(_ sequence: UInt64, _ properties: [AMQPPair]) {
        guard let old = record(sequence), let entry = table[sequence] else { return }
        var record = old.adding(properties, deadLetterSource: settings.forwardDeadLettersTo == nil ? nil : name)
        record.state = .active
        record.expiresAt = .max
        record.deliveryCount = 0
        if let name = settings.forwardDeadLettersTo, let target = broker.queue(named: name) {
            record.enqueuedSequence = sequence
            record.enqueuedAt = broker.now
            if target.settings.isTopic {
                broker.publish(record, target)
            } else {
                target.insert(&record)
            }
        } else {
            record.deliveryCount = entry.deliveryCount
            deadLetters?.insert(&record, sequence: sequence)
        }
        leave(sequence)
    }

    /// The time to live is over.
    func expire(_ sequence: UInt64) {
        guard settings.deadLettersOnExpiration else { return leave(sequence) }
        giveUp(sequence, reason: "TTLExpiredException", "The message expired and was dead lettered.")
    }

    /// Makes a dead letter of a message on the broker's own account, which the log tells.
    private func giveUp(_ sequence: UInt64, reason: String, _ description: String, _ changes: [AMQPPair] = []) {
        deadLetter(
            sequence,
            changes + [
                AMQPPair(string: "DeadLetterReason", .string(reason)),
                AMQPPair(string: "DeadLetterErrorDescription", .string(description)),
            ])
        broker.tellDeadLetter(sequence, of: self, reason: reason)
    }
}

extension AMQPError {
    static let lockLost = AMQPError(
        "com.microsoft:message-lock-lost",
        "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue."
    )
    static let sessionLockLost = AMQPError(
        "com.microsoft:session-lock-lost", "The session lock has expired on the session. Accept the session again.")
    static let messageNotFound = AMQPError(
        "com.microsoft:message-not-found", "The message does not exist, or is in another state.")
    static let storeFull = AMQPError(
        "amqp:resource-limit-exceeded", "The message store could not be written; the disk may be full.")
}
