/// Service Bus's own REST calls on messages: send, peek-lock, unlock, complete, renew, receive-and-delete.
///
///     POST   /{queue}/messages                         send; BrokerProperties as JSON in a header     201
///     POST   /{queue}/messages/head?timeout=60         peek-lock; Location names the locked message   201, 204
///     DELETE /{queue}/messages/head?timeout=60         receive and delete                             200, 204
///     PUT    /{queue}/messages/{sequence}/{token}      unlock                                         200
///     POST   /{queue}/messages/{sequence}/{token}      renew the lock                                 200
///     DELETE /{queue}/messages/{sequence}/{token}      complete                                       200
internal import AMQP
public import EventLoops
public import HTTPMessages
public import HTTPServers
internal import JSONText

/// Answers requests about messages.
@EventLoop
public struct BrokerREST {
    private let broker: Broker
    private let base: String

    /// - Parameter base: the address clients use, for Location.
    public init(broker: Broker, base: String) {
        self.broker = broker
        self.base = base
    }

    /// Answers what is about a queue's messages; nil for everything else.
    public func respond(to request: HTTPRequest) -> Eventual<HTTPResponse>? {
        guard let path = PercentCoding.decode(request.head.path) else { return nil }
        let parts = path.split(separator: "/")
        guard let at = parts.lastIndex(of: "messages"), at > 0, parts.count - at <= 3 else { return nil }
        let name = parts[..<at].joined(separator: "/")
        guard let queue = broker.queue(named: name) else { return nil }
        if let refusal = refusal(request.head, queue) { return .now(refusal) }
        let rest = parts[(at + 1)...].map(String.init)
        let method = request.head.method
        switch (method, rest.count) {
        case ("POST", 0): return send(request, queue)
        case ("POST", 1) where rest[0] == "head": return receive(request, queue, removes: false)
        case ("DELETE", 1) where rest[0] == "head": return receive(request, queue, removes: true)
        case ("PUT", 2): return settle(rest[1], queue, .release)
        case ("DELETE", 2): return settle(rest[1], queue, .complete)
        case ("POST", 2):
            guard let token = AMQPUUID(rest[1]), queue.renewLock(token) != nil else {
                return .now(failure(410, .lockLost))
            }
            return .now(HTTPResponse(status: 200))
        default: return .now(HTTPResponse(status: 405))
        }
    }

    private func refusal(_ head: RequestHead, _ queue: MessageQueue) -> HTTPResponse? {
        if broker.keys.isEmpty { return nil }
        let rights = AccessRights(broker: broker)
        let token = head.value("authorization") ?? ""
        let reason = rights.put(token: token, audience: "") ?? (rights.allows(queue.name) ? nil : "not for this queue")
        return reason.map { failure(401, AMQPError("amqp:unauthorized-access", $0)) }
    }

    private func failure(_ status: Int, _ error: AMQPError) -> HTTPResponse {
        var response = HTTPResponse(status: status)
        response.fields.add("Content-Type", "application/xml; charset=utf-8")
        response.body = Array(
            "<Error><Code>\(status)</Code><Detail>\(xmlEscape(error.description))</Detail></Error>".utf8)
        return response
    }

    // MARK: Sending

    private func send(_ request: HTTPRequest, _ queue: MessageQueue) -> Eventual<HTTPResponse> {
        var message = AMQPMessage(body: .data(request.body))
        message.properties.contentType = request.head.value("content-type")
        if let text = request.head.value("brokerproperties") {
            guard let json = try? JSONParser.parse(Array(text.utf8)), json.members != nil else {
                return .now(
                    failure(400, AMQPError("com.microsoft:argument-error", "BrokerProperties is no JSON object")))
            }
            apply(json, to: &message)
        }
        for (name, value) in request.head.allFields where !Self.ownFields.contains(name.lowercased()) {
            // Properties of the user's are headers, text in quotes, as Azure has it.
            let bare = value.hasPrefix("\"") && value.hasSuffix("\"") && value.count >= 2
            let text = bare ? String(value.dropFirst().dropLast()) : value
            let property: AMQPValue = bare ? .string(text) : Int64(text).map { .long($0) } ?? .string(text)
            message.applicationProperties.append(AMQPPair(string: name, property))
        }
        if case .null = message.properties.messageID {
            message.properties.messageID = .string(AMQPUUID(high: broker.random(), low: broker.random()).description)
        }
        let error = message.encoded.withUnsafeBytes { broker.send($0, format: 0, to: queue) }
        if let error {
            let status = error.condition == "amqp:link:message-size-exceeded" ? 413 : 400
            return .now(failure(status, error))
        }
        return afterCommit(HTTPResponse(status: 201))
    }

    private func apply(_ json: JSONValue, to message: inout AMQPMessage) {
        let text = { (name: String) in json[name]?.string }
        message.properties.messageID = text("MessageId").map { .string($0) } ?? .null
        message.properties.correlationID = text("CorrelationId").map { .string($0) } ?? .null
        message.properties.subject = text("Label") ?? text("Subject")
        message.properties.to = text("To")
        message.properties.replyTo = text("ReplyTo")
        message.properties.groupID = text("SessionId")
        message.properties.replyToGroupID = text("ReplyToSessionId")
        if let seconds = json["TimeToLive"]?.double, seconds >= 0, seconds < 4_294_967 {
            message.header.timeToLive = UInt32(seconds * 1000)
        }
        if let key = text("PartitionKey") {
            message.messageAnnotations.append(AMQPPair(symbol: "x-opt-partition-key", .string(key)))
        }
        if let seconds = text("ScheduledEnqueueTimeUtc").flatMap(HTTPDate.seconds) {
            message.messageAnnotations.append(
                AMQPPair(symbol: "x-opt-scheduled-enqueue-time", .timestamp(seconds * 1000)))
        }
    }

    private static let ownFields: Set<String> = [
        "host", "user-agent", "accept", "content-type", "content-length", "brokerproperties", "authorization",
        "connection", "accept-encoding", "transfer-encoding", "expect", "x-functions-key", "traceparent", "tracestate",
        "origin", "date",
    ]

    private func afterCommit(_ response: HTTPResponse) -> Eventual<HTTPResponse> {
        .later { [broker] done in
            broker.effects.append(
                .call { error in
                    done(error == nil ? response : HTTPResponse(status: 507))
                })
            broker.wake()
        }
    }

    private func settle(_ token: String, _ queue: MessageQueue, _ disposition: Disposition) -> Eventual<HTTPResponse> {
        guard let token = AMQPUUID(token) else { return .now(failure(410, .lockLost)) }
        if let error = queue.settle(token, disposition, then: nil) { return .now(failure(410, error)) }
        return afterCommit(HTTPResponse(status: 200))
    }

    // MARK: Receiving

    private func receive(_ request: HTTPRequest, _ queue: MessageQueue, removes: Bool) -> Eventual<HTTPResponse> {
        if queue.settings.isTopic {
            let text = "'\(queue.name)' is a topic; receive from one of its subscriptions"
            return .now(failure(400, AMQPError("amqp:not-allowed", text)))
        }
        if queue.requiresSession {
            return .now(failure(400, AMQPError("amqp:not-allowed", "queues with sessions are received from by AMQP")))
        }
        let query = PercentCoding.query(request.head.query)
        let timeout = query.last { $0.name.lowercased() == "timeout" }.flatMap { Int($0.value) } ?? 60
        return .later { done in
            OneTimeReceiver.wait(queue, removes: removes, seconds: min(max(timeout, 0), 300)) { taken in
                guard let (record, delivery) = taken else { return done(HTTPResponse(status: 204)) }
                done(response(record, delivery, queue, removes: removes))
            }
        }
    }

    private func response(
        _ record: MessageRecord, _ delivery: MessageRecord.Delivery, _ queue: MessageQueue, removes: Bool
    ) -> HTTPResponse {
        var response = HTTPResponse(status: removes ? 200 : 201)
        var writer = AMQPWriter()
        record.write(delivery, to: &writer)
        let message = (try? AMQPMessage(writer.bytes)) ?? AMQPMessage()
        response.body = message.contents
        response.fields.add("Content-Type", message.properties.contentType ?? "application/octet-stream")
        response.fields.add(
            "BrokerProperties", String(decoding: brokerProperties(record, delivery, message), as: UTF8.self))
        for pair in message.applicationProperties {
            guard let name = pair.key.text else { continue }
            if let text = pair.value.text {
                response.fields.add(name, "\"\(text)\"")
            } else if let number = pair.value.integer {
                response.fields.add(name, "\(number)")
            }
        }
        if let token = delivery.lockToken {
            response.fields.add("Location", "\(base)/\(queue.name)/messages/\(record.sequence)/\(token)")
        }
        return response
    }

    /// Azure's words for a message's properties.
    func brokerProperties(
        _ record: MessageRecord, _ delivery: MessageRecord.Delivery, _ message: AMQPMessage
    ) -> [UInt8] {
        jsonObject { writer in
            writer.member("DeliveryCount", delivery.deliveryCount + 1)
            writer.member("SequenceNumber", record.sequence)
            writer.member("EnqueuedSequenceNumber", record.enqueuedSequence)
            writer.member("EnqueuedTimeUtc", HTTPDate.text(record.enqueuedAt / 1000))
            writer.member("State", "\(delivery.state)".capitalizedFirst)
            if let token = delivery.lockToken { writer.member("LockToken", token.description) }
            if let until = delivery.lockedUntil { writer.member("LockedUntilUtc", HTTPDate.text(until / 1000)) }
            if !record.messageID.isEmpty { writer.member("MessageId", record.messageID) }
            if record.hasSession { writer.member("SessionId", record.sessionID) }
            if let text = message.properties.subject { writer.member("Label", text) }
            if let text = message.properties.correlationID.text { writer.member("CorrelationId", text) }
            if let text = message.properties.to { writer.member("To", text) }
            if let text = message.properties.replyTo { writer.member("ReplyTo", text) }
            if let span = message.header.timeToLive { writer.member("TimeToLive", span / 1000) }
        }
    }
}

extension String {
    fileprivate var capitalizedFirst: String { prefix(1).uppercased() + dropFirst() }
}

extension AMQPMessage {
    /// The body as bytes, whatever kind it is.
    var contents: [UInt8] {
        switch body {
        case .none: []
        case .data(let bytes), .value(.binary(let bytes)): bytes
        case .value(.string(let text)): Array(text.utf8)
        default: encoded
        }
    }
}

/// Takes one message, or gives up after a time.
@EventLoop
final class OneTimeReceiver: MessageReceiver {
    let isPeekLock: Bool
    let session: MessageSession? = nil
    private let queue: MessageQueue
    private var done: (@EventLoop ((MessageRecord, MessageRecord.Delivery)?) -> Void)?
    private var timer: LoopTimer?
    private var isReserved = false

    private init(_ queue: MessageQueue, removes: Bool) {
        self.queue = queue
        isPeekLock = !removes
    }

    static func wait(
        _ queue: MessageQueue, removes: Bool, seconds: Int,
        _ done: @escaping @EventLoop ((MessageRecord, MessageRecord.Delivery)?) -> Void
    ) {
        let receiver = OneTimeReceiver(queue, removes: removes)
        receiver.done = done
        receiver.timer = LoopTimer { receiver.end(nil) }
        queue.add(receiver)
        queue.pump()
        guard receiver.done != nil else { return }
        // Whoever asks to wait for nothing still waits for the disk.
        receiver.timer?.start(after: seconds == 0 ? .milliseconds(1) : .seconds(seconds))
    }

    var canTake: Bool { done != nil && !isReserved }
    func reserve() { isReserved = true }
    func cancelReservation() {
        isReserved = false
        if timer?.isActive != true { end(nil) }
    }
    func sessionLockWasLost() {}

    func take(_ record: MessageRecord, _ delivery: MessageRecord.Delivery) {
        isReserved = false
        end((record, delivery))
    }

    private func end(_ taken: (MessageRecord, MessageRecord.Delivery)?) {
        // A message on its way out of the disk still comes.
        guard let done, !isReserved else { return }
        self.done = nil
        queue.remove(self)
        timer?.stop()
        timer = nil
        done(taken)
    }
}
