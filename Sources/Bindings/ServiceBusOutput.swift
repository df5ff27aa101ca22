/// `serviceBus` with direction out: sends a message, or one for each element of an array.
internal import AMQP
internal import Diagnostics
public import EventLoops
public import Invocations
internal import JSONText
public import ServiceBus

/// Gives a sender for an entity; throws while there is no broker.
public typealias BusSenderSource = @EventLoop (String) throws(ServiceBusError) -> BusSender

/// Sends what a function gives it, one after the other, each safe at the broker before the next.
@EventLoop
public final class ServiceBusOutput: OutputBinding {
    public let name: String
    private let entity: BindingTemplate
    private let sender: BusSenderSource
    private var random = RandomBytes()

    public init(name: String, entity: BindingTemplate, sender: @escaping BusSenderSource) {
        self.name = name
        self.entity = entity
        self.sender = sender
    }

    public func write(
        _ value: OutputValue, for invocation: Invocation, _ data: BindingData
    ) async throws(InvocationFailure) {
        let entity = try entity.text(for: invocation, data, binding: name)
        let sender: BusSender
        do throws(ServiceBusError) {
            sender = try self.sender(entity)
        } catch {
            throw InvocationFailure(error, binding: name)
        }
        // All are looked at before the first goes.
        var messages: [AMQPMessage] = []
        for element in value.elements {
            guard let message = try message(of: element) else { continue }
            let isScheduled = message.messageAnnotations.contains { $0.key.text == Self.scheduledTime }
            if isScheduled, !sender.isServiceBus {
                throw refused(
                    "'scheduledEnqueueTimeUtc' is set, and the broker of '\(entity)' does not schedule messages")
            }
            messages.append(message)
        }
        for message in messages {
            guard let error = await sender.send(message.encoded).value() else { continue }
            // What the broker refuses for what it is, it refuses again: that is no reason to wait for the broker.
            throw InvocationFailure(
                code: "AN8009", fault: error.isAboutTheMessage ? .user : .service,
                message: "binding '\(name)': '\(entity)' took no message: \(error)")
        }
    }

    private func refused(_ reason: String) -> InvocationFailure {
        InvocationFailure(code: "AN8009", fault: .user, message: "binding '\(name)': \(reason)")
    }

    private static let scheduledTime = "x-opt-scheduled-enqueue-time"

    /// One message; nil for nothing. An object with `body` and nothing but the message's own properties beside it is
    /// the message itself.
    func message(of value: OutputValue) throws(InvocationFailure) -> AMQPMessage? {
        guard case .json(let json) = value, let members = json.members, let body = json["body"],
            members.allSatisfy({ Self.known.contains($0.name) })
        else {
            guard let contents = value.contents else { return nil }
            return fresh(contents)
        }
        var message = fresh(OutputValue.json(body).contents ?? [])
        if let id = try text("messageId", json) { message.properties.messageID = .string(id) }
        message.properties.correlationID = try text("correlationId", json).map { .string($0) } ?? .null
        message.properties.contentType = try text("contentType", json)
        message.properties.subject = try text("subject", json)
        message.properties.to = try text("to", json)
        message.properties.replyTo = try text("replyTo", json)
        message.properties.groupID = try text("sessionId", json)
        message.properties.replyToGroupID = try text("replyToSessionId", json)
        if let value = json["timeToLiveSeconds"], !value.isNull {
            guard let seconds = value.double, seconds > 0, seconds < 4_294_967 else {
                throw refused("'timeToLiveSeconds' must be a number above 0 and below 4294967")
            }
            message.header.timeToLive = UInt32(seconds * 1000)
        }
        if let key = try text("partitionKey", json) {
            message.messageAnnotations.append(AMQPPair(symbol: "x-opt-partition-key", .string(key)))
        }
        if let text = try text("scheduledEnqueueTimeUtc", json) {
            guard let time = Self.parseUTC(text) else {
                throw refused("'scheduledEnqueueTimeUtc' is '\(text)'; write it like 2026-01-02T03:04:05Z")
            }
            message.messageAnnotations.append(AMQPPair(symbol: Self.scheduledTime, .timestamp(time)))
        }
        message.applicationProperties = try applicationProperties(json["applicationProperties"])
        return message
    }

    /// A message with an id, as the SDKs make them, which tells it from another with the same body; durable, or
    /// RabbitMQ drops it when it restarts.
    private func fresh(_ contents: [UInt8]) -> AMQPMessage {
        var message = AMQPMessage(body: .data(contents))
        message.header.durable = true
        message.properties.messageID = .string("\(InvocationID(from: &random))")
        return message
    }

    /// A property that is text; numbers count as their digits, null as absent.
    private func text(_ key: String, _ value: JSONValue) throws(InvocationFailure) -> String? {
        switch value[key]?.content {
        case nil, .null: return nil
        case .string(let text): return text
        case .number(let digits): return digits
        default: throw refused("'\(key)' must be text")
        }
    }

    private func applicationProperties(_ value: JSONValue?) throws(InvocationFailure) -> [AMQPPair] {
        guard let value, !value.isNull else { return [] }
        guard let members = value.members else { throw refused("'applicationProperties' must be an object") }
        var pairs: [AMQPPair] = []
        for member in members {
            guard let property = Self.property(member.value) else {
                throw refused("the application property '\(member.name)' must be text, a number, true, false or null")
            }
            pairs.append(AMQPPair(string: member.name, property))
        }
        return pairs
    }

    private static let known: Set<String> = [
        "body", "messageId", "correlationId", "contentType", "subject", "to", "replyTo", "sessionId",
        "replyToSessionId", "timeToLiveSeconds", "partitionKey", "scheduledEnqueueTimeUtc", "applicationProperties",
    ]

    private static func property(_ value: JSONValue) -> AMQPValue? {
        if let text = value.string { return .string(text) }
        if let truth = value.bool { return .bool(truth) }
        if let whole = value.integer { return .long(Int64(whole)) }
        if let number = value.double { return .double(number) }
        return value.isNull ? .null : nil
    }

    /// Milliseconds of `2026-01-02T03:04:05[.678]Z`; nil for other texts.
    static func parseUTC(_ text: String) -> Int64? {
        let parts = text.split(whereSeparator: { "-T:Z+".contains($0) })
        guard parts.count >= 6, text.hasSuffix("Z") || text.hasSuffix("+00:00"), let year = Int64(parts[0]),
            let month = Int64(parts[1]), let day = Int64(parts[2]), let hour = Int64(parts[3]),
            let minute = Int64(parts[4]), let second = Double(parts[5]), (1...12).contains(month),
            (1...31).contains(day), (1970...9999).contains(year), (0...23).contains(hour),
            (0...59).contains(minute), (0..<61).contains(second)
        else { return nil }
        // Days since 1970 of the proleptic Gregorian calendar.
        let shifted = month <= 2 ? year - 1 : year
        let era = shifted / 400
        let ofEra = shifted - era * 400
        let ofYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        let days = era * 146_097 + ofEra * 365 + ofEra / 4 - ofEra / 100 + ofYear - 719_468
        return ((days * 24 + hour) * 60 + minute) * 60_000 + Int64(second * 1000)
    }
}

extension AMQPError {
    /// Whether a broker refuses a message for what it is: too large, without a session, not readable.
    fileprivate var isAboutTheMessage: Bool {
        [
            "amqp:link:message-size-exceeded", "amqp:not-allowed", "amqp:decode-error", "com.microsoft:argument-error",
            "com.microsoft:argument-out-of-range",
        ].contains(condition)
    }
}
