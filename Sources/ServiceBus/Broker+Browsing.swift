/// The broker as people look at it: documents about queues and messages, and what is done to many messages at once.
public import AMQP
public import EventLoops
internal import JSONText

extension Broker {
    /// All queues with their counts, as JSON.
    public var queuesDocument: [UInt8] {
        var writer = JSONWriter()
        writer.beginArray()
        for queue in allQueues {
            writer.beginObject()
            writer.member("name", queue.name)
            writer.member("active", queue.activeCount)
            writer.member("deferred", queue.deferredCount)
            writer.member("scheduled", queue.scheduledCount)
            writer.member("deadLetters", queue.deadLetters?.activeCount ?? 0)
            writer.member("locked", queue.locks.count)
            writer.member("bytes", queue.byteCount)
            writer.member("requiresSession", queue.settings.requiresSession)
            writer.member("kind", queue.isSubscription ? "subscription" : queue.settings.isTopic ? "topic" : "queue")
            writer.endObject()
        }
        writer.endArray()
        return writer.bytes
    }

    /// Messages of a queue from a number on, as JSON: number, id, state, body as text, dead-letter reason.
    public func messagesDocument(_ queue: MessageQueue, from start: Int, count: Int) -> [UInt8] {
        var writer = JSONWriter()
        writer.beginArray()
        for record in queue.peek(from: UInt64(max(0, start)), count: max(0, count)) {
            var encoded = AMQPWriter()
            record.write(MessageRecord.Delivery(), to: &encoded)
            guard let message = try? AMQPMessage(encoded.bytes) else { continue }
            let properties = AMQPValue.map(message.applicationProperties)
            writer.beginObject()
            writer.member("sequenceNumber", record.sequence)
            writer.member("messageId", record.messageID)
            if record.hasSession { writer.member("sessionId", record.sessionID) }
            writer.member("enqueuedTimeUtc", HTTPDate.iso(record.enqueuedAt))
            writer.member("state", "\(record.state)")
            writer.member("deliveryCount", record.deliveryCount)
            if let text = message.properties.subject { writer.member("subject", text) }
            if let text = message.properties.contentType { writer.member("contentType", text) }
            if let text = message.properties.correlationID.text { writer.member("correlationId", text) }
            let own = message.applicationProperties.filter { pair in
                pair.key.text != "DeadLetterReason" && pair.key.text != "DeadLetterErrorDescription"
            }
            if !own.isEmpty {
                writer.name("applicationProperties")
                writer.beginObject()
                for pair in own { FilterValue(pair.value).write(shown: pair.key.text ?? "", to: &writer) }
                writer.endObject()
            }
            if let reason = properties["DeadLetterReason"]?.text { writer.member("deadLetterReason", reason) }
            if let text = properties["DeadLetterErrorDescription"]?.text {
                writer.member("deadLetterErrorDescription", text)
            }
            writer.member("body", String(decoding: message.contents, as: UTF8.self))
            writer.endObject()
        }
        writer.endArray()
        return writer.bytes
    }

    private func afterCommit(_ count: Int) -> Eventual<Result<Int, ServiceBusError>> {
        .later { [self] done in
            effects.append(
                .call { error in
                    done(error.map { .failure(.store(path: "servicebus", reason: $0.message)) } ?? .success(count))
                })
            wake()
        }
    }

    /// Removes every message nobody holds.
    public func purge(_ queue: MessageQueue) -> Eventual<Result<Int, ServiceBusError>> { afterCommit(queue.purge()) }

    /// Moves messages nobody holds to another queue, in order, each with a new number and its old properties, without
    /// what had been said about its death; into a queue with sessions only those that have one. All in one commit.
    public func move(
        from queue: MessageQueue, to target: MessageQueue, count: Int
    ) -> Eventual<Result<Int, ServiceBusError>> {
        var moving: [UInt64] = []
        queue.table.forEach { sequence, entry in
            if entry.isReady { moving.append(sequence) }
            return moving.count < count
        }
        var moved = 0
        for sequence in moving {
            guard let old = queue.record(sequence), !target.requiresSession || old.hasSession else { continue }
            moved += 1
            var record = old.removing(["DeadLetterReason", "DeadLetterErrorDescription"])
            record.state = .active
            record.deliveryCount = 0
            record.enqueuedAt = now
            record.expiresAt = target.expiry(of: record, from: now)
            target.insert(&record)
            queue.leave(sequence)
        }
        return afterCommit(moved)
    }

    /// Sends a message with a body and nothing else; why it was refused, or nil when it is on disk.
    public func send(body: [UInt8], sessionID: String?, to queue: MessageQueue) -> Eventual<AMQPError?> {
        // What is meant for a subscription goes to its topic, as from any sender.
        let queue = queue.topic ?? queue
        var message = AMQPMessage(body: .data(body))
        message.properties.messageID = .string(AMQPUUID(high: random(), low: random()).description)
        message.properties.groupID = sessionID
        if let error = message.encoded.withUnsafeBytes({ send($0, format: 0, to: queue) }) { return .now(error) }
        return .later { [self] done in
            effects.append(.call { error in done(error == nil ? nil : .storeFull) })
            wake()
        }
    }
}

extension Broker {
    /// Makes what a configuration names; queues that exist take on its properties.
    public func apply(_ configuration: EmulatorConfiguration) {
        for queue in configuration.queues {
            guard let existing = self.queue(named: queue.name) else {
                createQueue(queue.name, queue.settings)
                continue
            }
            var settings = queue.settings
            settings.createdAt = existing.settings.createdAt
            settings.updatedAt = existing.settings.updatedAt
            if settings != existing.settings { update(existing, settings) }
        }
        for topic in configuration.topics {
            createTopic(topic.name, topic.settings)
            for subscription in topic.subscriptions { createSubscription(topic.name, subscription) }
        }
    }
}

extension FilterValue {
    /// As people read it: numbers as numbers, times as text.
    fileprivate func write(shown name: String, to writer: inout JSONWriter) {
        switch self {
        case .number(let value):
            writer.name(name)
            writer.value(value.isFinite ? JSONValue(.number("\(value)")) : JSONValue(.null))
        case .time(let time): writer.member(name, HTTPDate.iso(time))
        case .span(let span): writer.member(name, ISODuration.text(span))
        case .uuid(let high, let low): writer.member(name, AMQPUUID(high: high, low: low).description)
        case .other, .unknown:
            writer.name(name)
            writer.value(JSONValue(.null))
        case .text, .integer, .truth: write(name, to: &writer)
        }
    }
}
