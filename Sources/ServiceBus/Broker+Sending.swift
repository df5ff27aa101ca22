/// From the bytes a sender wrote to messages in queues: limits, duplicates, time, forwarding.
internal import AMQP
internal import EventLoops

extension Broker {
    /// Format of a transfer that carries many messages.
    static let batchFormat: UInt32 = 0x8001_3700

    /// Takes in one delivery, a message or a batch of them: all or none, in one commit.
    ///
    /// - Returns: the error to answer with; nil when the messages are on their way to the disk.
    func send(_ payload: UnsafeRawBufferPointer, format: UInt32, to queue: MessageQueue) -> AMQPError? {
        if let refusal = queue.refusesSends { return refusal }
        guard payload.count <= ServiceBusLimits.messageByteCount else { return .tooLarge(payload.count) }
        do throws(AMQPError) {
            guard format == Self.batchFormat else {
                var (record, target) = try admit(payload, to: queue)
                put(&record, target)
                return nil
            }
            let sections = try MessageSections(payload)
            var admitted: [(record: MessageRecord, target: MessageQueue)] = []
            for range in try MessageSections.dataSections(payload, body: sections.body) {
                admitted.append(try admit(UnsafeRawBufferPointer(rebasing: payload[range]), to: queue))
            }
            for (record, target) in admitted {
                var record = record
                put(&record, target)
            }
            return nil
        } catch {
            return error
        }
    }

    /// Puts an admitted message into its queue; a duplicate is accepted and dropped.
    ///
    /// - Parameter end: when it expires at the latest, whatever the queue says.
    @discardableResult
    func put(_ record: inout MessageRecord, _ queue: MessageQueue, expiresBy end: Int64 = .max) -> UInt64 {
        let now = now
        if queue.settings.requiresDuplicateDetection {
            let id = record.messageID
            if !id.isEmpty {
                let window = queue.settings.duplicateDetectionWindow
                if queue.history.contains(id, since: now - window) { return 0 }
                queue.history.forget(before: now - window) { count($0, isLive: false) }
                let place = append(
                    SmallRecord.named(
                        RecordKind.duplicateID, queue: queue.id, number: UInt64(bitPattern: now), name: id))
                queue.history.remember(id, at: now, place)
                count(place, isLive: true)
                queue.wake(at: now + window + 1)
                effects.append(
                    .call { [self] failure in
                        // The sender is told that it failed, and must not be taken for its own double.
                        guard failure != nil else { return }
                        queue.history.drop(id, place)
                        count(place, isLive: false)
                    })
            }
        }
        record.enqueuedAt = now
        if queue.settings.isTopic, record.scheduledFor <= now {
            queue.accessedAt = now
            publish(record, queue)
            return 0
        }
        if record.scheduledFor > now {
            record.state = .scheduled
            record.expiresAt = .max
        } else {
            record.state = .active
            record.expiresAt = min(end, queue.expiry(of: record, from: now))
        }
        return queue.insert(&record)
    }

    /// Checks a message and finds the queue it ends up in.
    func admit(
        _ payload: UnsafeRawBufferPointer, to queue: MessageQueue
    ) throws(AMQPError) -> (record: MessageRecord, target: MessageQueue) {
        guard payload.count <= ServiceBusLimits.messageByteCount else { throw .tooLarge(payload.count) }
        let record = try Self.record(payload)
        var target = queue
        var hops = 0
        while let name = target.settings.forwardTo {
            hops += 1
            guard hops <= ServiceBusLimits.forwardingHops else {
                throw AMQPError("amqp:not-allowed", "the message would be forwarded more than four times")
            }
            guard let next = self.queue(named: name) else {
                throw AMQPError("amqp:not-found", "'\(target.name)' forwards to '\(name)', which does not exist")
            }
            target = next
        }
        if let refusal = target.refusesSends { throw refusal }
        if target.settings.requiresSession, !record.hasSession {
            throw AMQPError(
                "amqp:not-allowed",
                "The SessionId was not set on a message, and it cannot be sent to the entity. Entities that have session support enabled can only receive messages that have the SessionId set to a valid value."
            )
        }
        let held = target.settings.isTopic ? target.subscriptions.reduce(0) { $0 + $1.byteCount } : target.byteCount
        guard held + payload.count <= target.settings.maxSizeInMegabytes << 20 else {
            throw AMQPError(
                "amqp:resource-limit-exceeded",
                "The maximum entity size of \(target.settings.maxSizeInMegabytes) MB has been reached for '\(target.name)'."
            )
        }
        return (record, target)
    }

    /// Reads what the broker acts on; the rest stays bytes.
    static func record(_ payload: UnsafeRawBufferPointer) throws(AMQPError) -> MessageRecord {
        let sections = try MessageSections(payload)
        var parts = MessageRecord.Parts()
        if let range = sections.header {
            let header = try AMQPMessage.Header(try fields(payload, range))
            parts.isDurable = header.durable
            parts.priority = header.priority ?? 4
            parts.timeToLive = header.timeToLive ?? MessageRecord.noTimeToLive
        }
        var partitionKey: String?
        var annotations: [UInt8] = []
        if let range = sections.messageAnnotations {
            var reader = AMQPReader(UnsafeRawBufferPointer(rebasing: payload[range]))
            _ = try reader.descriptor()
            var writer = AMQPWriter()
            for pair in try reader.value().pairs ?? [] {
                let name = pair.key.text ?? ""
                if name == "x-opt-scheduled-enqueue-time" { parts.scheduledFor = pair.value.integer ?? 0 }
                if name == "x-opt-partition-key" { partitionKey = pair.value.text }
                // What a resent message says about its former life is not carried on.
                if ownAnnotations.contains(name) { continue }
                writer.value(pair.key)
                writer.value(pair.value)
                parts.annotationCount += 1
            }
            annotations = writer.bytes
        }
        if let range = sections.properties {
            var fields = try fields(payload, range)
            let id = try fields.value()
            for _ in 0..<9 { try fields.skip() }
            let group = try fields.value().text
            parts.messageID = Array((id.text ?? id.identifierText).utf8)
            parts.sessionID = Array((group ?? "").utf8)
        }
        try check(parts.messageID, "message id")
        try check(parts.sessionID, "session id")
        if let partitionKey, !parts.sessionID.isEmpty, partitionKey != String(decoding: parts.sessionID, as: UTF8.self)
        {
            throw AMQPError("com.microsoft:argument-error", "the partition key differs from the session id")
        }
        guard annotations.isEmpty else {
            return annotations.withUnsafeBytes { memory in
                parts.annotations = memory
                return MessageRecord(parts, bare: UnsafeRawBufferPointer(rebasing: payload[sections.bare]))
            }
        }
        return MessageRecord(parts, bare: UnsafeRawBufferPointer(rebasing: payload[sections.bare]))
    }

    private static func check(_ identifier: [UInt8], _ name: String) throws(AMQPError) {
        guard identifier.count > ServiceBusLimits.identifierByteCount else { return }
        throw AMQPError(
            "com.microsoft:argument-out-of-range",
            "the \(name) has \(identifier.count) bytes; \(ServiceBusLimits.identifierByteCount) are allowed")
    }

    private static func fields(_ payload: UnsafeRawBufferPointer, _ range: Range<Int>) throws(AMQPError) -> AMQPFields {
        var reader = AMQPReader(UnsafeRawBufferPointer(rebasing: payload[range]))
        _ = try reader.descriptor()
        return try reader.fields()
    }

    private static let ownAnnotations: Set<String> = [
        "x-opt-enqueued-time", "x-opt-sequence-number", "x-opt-locked-until", "x-opt-message-state",
        "x-opt-deadletter-source", "x-opt-enqueue-sequence-number", "x-opt-lock-token",
    ]
}

extension MessageQueue {
    /// Why nothing can be sent here; nil when it can.
    var refusesSends: AMQPError? {
        if isDeleted { return AMQPError("amqp:not-found", "'\(name)' was deleted") }
        if kind != .queue || isSubscription {
            return AMQPError("amqp:not-allowed", "messages cannot be sent to '\(name)'")
        }
        if settings.status.refusesSends {
            return AMQPError(
                "com.microsoft:entity-disabled",
                "'\(name)' takes no messages: its status is \(settings.status.rawValue)")
        }
        return nil
    }
}

extension AMQPValue {
    /// A message id that is no text, as text.
    var identifierText: String {
        switch self {
        case .ulong(let value): String(value)
        case .uuid(let value): value.description
        case .binary(let bytes): bytes.map { String($0, radix: 16) }.joined(separator: ".")
        case .null: ""
        default: integer.map { String($0) } ?? ""
        }
    }
}

extension AMQPError {
    static func tooLarge(_ count: Int) -> AMQPError {
        AMQPError(
            "amqp:link:message-size-exceeded",
            "The message has \(count) bytes; the limit is \(ServiceBusLimits.messageByteCount).")
    }
}
