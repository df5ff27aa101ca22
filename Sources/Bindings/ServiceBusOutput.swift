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

    public init(name: String, entity: BindingTemplate, sender: @escaping BusSenderSource) {
        self.name = name
        self.entity = entity
        self.sender = sender
    }

    public func write(
        _ value: OutputValue, for invocation: Invocation, _ data: BindingData
    ) async throws(InvocationFailure) {
        let entity: String
        do throws(BindingTemplateError) {
            entity = try self.entity.resolve(data, functionName: invocation.functionName)
        } catch {
            throw InvocationFailure(code: "AN8006", fault: .user, message: "binding '\(name)': \(error.message)")
        }
        let sender: BusSender
        do throws(ServiceBusError) {
            sender = try self.sender(entity)
        } catch {
            throw InvocationFailure(
                code: error.code, fault: error.fault, message: "binding '\(name)': \(error.message)",
                remedy: error.remedy)
        }
        for message in Self.messages(value) {
            guard let error = await sender.send(message.encoded).value() else { continue }
            throw InvocationFailure(
                code: "AN8009", fault: .service, message: "binding '\(name)': '\(entity)' took no message: \(error)")
        }
    }

    /// The messages a value stands for: each element of an array is one, also of text that looks like an array.
    static func messages(_ value: OutputValue) -> [AMQPMessage] {
        var value = value
        if case .json(let json) = value, let text = json.string, text.first(where: { !$0.isWhitespace }) == "[",
            let parsed = try? JSONParser.parse(Array(text.utf8)), parsed.elements != nil
        {
            value = .json(parsed)
        }
        guard case .json(let json) = value else {
            return value.contents.map { [AMQPMessage(body: .data($0))] } ?? []
        }
        return (json.elements ?? [json]).compactMap { message(of: $0) }
    }

    /// One message. An object with `body` and nothing but the message's own properties beside it is the message itself.
    private static func message(of value: JSONValue) -> AMQPMessage? {
        guard let members = value.members, let body = value["body"],
            members.allSatisfy({ known.contains($0.name) })
        else {
            return OutputValue.json(value).contents.map { AMQPMessage(body: .data($0)) }
        }
        var message = AMQPMessage(body: .data(OutputValue.json(body).contents ?? []))
        let text = { (key: String) in value[key]?.string }
        message.properties.messageID = text("messageId").map { .string($0) } ?? .null
        message.properties.correlationID = text("correlationId").map { .string($0) } ?? .null
        message.properties.contentType = text("contentType")
        message.properties.subject = text("subject")
        message.properties.to = text("to")
        message.properties.replyTo = text("replyTo")
        message.properties.groupID = text("sessionId")
        message.properties.replyToGroupID = text("replyToSessionId")
        if let seconds = value["timeToLiveSeconds"]?.double, seconds >= 0, seconds < 4_294_967 {
            message.header.timeToLive = UInt32(seconds * 1000)
        }
        if let key = text("partitionKey") {
            message.messageAnnotations.append(AMQPPair(symbol: "x-opt-partition-key", .string(key)))
        }
        if let time = value["scheduledEnqueueTimeUtc"]?.string.flatMap(parseUTC) {
            message.messageAnnotations.append(AMQPPair(symbol: "x-opt-scheduled-enqueue-time", .timestamp(time)))
        }
        message.applicationProperties = (value["applicationProperties"]?.members ?? []).map { member in
            AMQPPair(string: member.name, property(member.value))
        }
        return message
    }

    private static let known: Set<String> = [
        "body", "messageId", "correlationId", "contentType", "subject", "to", "replyTo", "sessionId",
        "replyToSessionId", "timeToLiveSeconds", "partitionKey", "scheduledEnqueueTimeUtc", "applicationProperties",
    ]

    private static func property(_ value: JSONValue) -> AMQPValue {
        if let text = value.string { return .string(text) }
        if let truth = value.bool { return .bool(truth) }
        if let whole = value.integer { return .long(Int64(whole)) }
        if let number = value.double { return .double(number) }
        return .null
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
