/// What rules look at in a message, and what their actions change.
internal import AMQP
internal import EventLoops

/// A message's properties by the names of rules; decoded when a rule first asks.
final class MessageFacts {
    private let record: MessageRecord
    private lazy var message: AMQPMessage = {
        var writer = AMQPWriter()
        record.write(MessageRecord.Delivery(), to: &writer)
        return (try? AMQPMessage(writer.bytes)) ?? AMQPMessage()
    }()

    init(_ record: MessageRecord) { self.record = record }

    /// Whether a rule lets the message through.
    func meets(_ rule: CompiledRule) -> Bool {
        switch rule.filter {
        case .all: true
        case .nothing: false
        case .sql: rule.condition?.matches { value($0, in: message) } ?? false
        case .correlation(let system, let application):
            system.allSatisfy { Self.text($0.key, message.properties) == $0.value }
                && application.allSatisfy { Self.application($0.key, message).equals($0.value) }
        }
    }

    private func value(_ property: SQLProperty, in message: AMQPMessage) -> FilterValue {
        guard property.isSystem else { return Self.application(property.name, message) }
        switch property.name {
        case "enqueuedtimeutc": return .time(record.enqueuedAt)
        case "expiresatutc": return record.expiresAt == .max ? .unknown : .time(record.expiresAt)
        case "scheduledenqueuetimeutc": return record.scheduledFor == 0 ? .unknown : .time(record.scheduledFor)
        case "timetolive":
            return record.timeToLive == MessageRecord.noTimeToLive ? .unknown : .span(Int64(record.timeToLive))
        case "sequencenumber", "enqueuedsequencenumber": return .integer(Int64(bitPattern: record.sequence))
        case "deliverycount": return .integer(Int64(record.deliveryCount))
        case "size": return .integer(Int64(record.bytes.count))
        case "partitionkey":
            let key = message.messageAnnotations.first { $0.key.text == "x-opt-partition-key" }?.value.text
            return key.map { .text($0) } ?? .unknown
        default: return Self.text(property.name, message.properties).map { .text($0) } ?? .unknown
        }
    }

    private static func text(_ name: String, _ properties: AMQPMessage.Properties) -> String? {
        let identifier = { (value: AMQPValue) in value.isNull ? nil : value.text ?? value.identifierText }
        switch name {
        case "messageid": return identifier(properties.messageID)
        case "correlationid": return identifier(properties.correlationID)
        case "contenttype": return properties.contentType
        case "label", "subject": return properties.subject
        case "to": return properties.to
        case "replyto": return properties.replyTo
        case "sessionid": return properties.groupID
        case "replytosessionid": return properties.replyToGroupID
        default: return nil
        }
    }

    /// A property of the user's; the case of its name matters only when there are two.
    private static func application(_ name: String, _ message: AMQPMessage) -> FilterValue {
        let exact = message.applicationProperties.first { $0.key.text == name }
        let lower = name.lowercased()
        let found = exact ?? message.applicationProperties.first { $0.key.text?.lowercased() == lower }
        return found.map { FilterValue($0.value) } ?? .unknown
    }

    // MARK: Actions

    /// The message after an action, whose statements see what those before them did.
    func applying(_ action: SQLAction) -> MessageRecord {
        var changed = message
        for statement in action.statements {
            let value = statement.value?.value { self.value($0, in: changed) } ?? .unknown
            if statement.property.isSystem {
                Self.set(statement.property.name, value.amqp, &changed.properties)
            } else {
                let lower = statement.property.name.lowercased()
                let old = changed.applicationProperties.firstIndex { $0.key.text?.lowercased() == lower }
                switch (old, value) {
                case (let old?, .unknown): changed.applicationProperties.remove(at: old)
                case (let old?, _): changed.applicationProperties[old].value = value.amqp
                case (nil, .unknown): break
                case (nil, _):
                    changed.applicationProperties.append(AMQPPair(string: statement.property.name, value.amqp))
                }
            }
        }
        return record.replacing(
            properties: changed.properties == message.properties ? nil : changed.properties,
            applicationProperties: changed.applicationProperties)
    }

    private static func set(_ name: String, _ value: AMQPValue, _ properties: inout AMQPMessage.Properties) {
        let text = value.isNull ? nil : value.text ?? value.identifierText
        switch name {
        case "messageid": properties.messageID = value
        case "correlationid": properties.correlationID = value
        case "contenttype": properties.contentType = text
        case "label", "subject": properties.subject = text
        case "to": properties.to = text
        case "replyto": properties.replyTo = text
        case "sessionid": properties.groupID = text
        case "replytosessionid": properties.replyToGroupID = text
        default: break
        }
    }
}

extension FilterValue {
    init(_ value: AMQPValue) {
        switch value {
        case .null: self = .unknown
        case .bool(let truth): self = .truth(truth)
        case .float(let number): self = .number(Double(number))
        case .double(let number): self = .number(number)
        case .timestamp(let time): self = .time(time)
        case .uuid(let uuid): self = .uuid(uuid.high, uuid.low)
        // .NET's durations in ticks, as its SDK describes them.
        case .described(let descriptor, let ticks) where descriptor.text == "com.microsoft:timespan":
            self = ticks.integer.map { .span($0 / 10_000) } ?? .other
        default:
            if let text = value.text {
                self = .text(text)
            } else {
                self = value.integer.map { .integer($0) } ?? .other
            }
        }
    }

    /// The value as a message carries it.
    var amqp: AMQPValue {
        switch self {
        case .text(let text): .string(text)
        case .integer(let value): .long(value)
        case .number(let value): .double(value)
        case .truth(let truth): .bool(truth)
        case .time(let time): .timestamp(time)
        case .span(let span): .described(.symbol("com.microsoft:timespan"), .long(span &* 10_000))
        case .uuid(let high, let low): .uuid(AMQPUUID(high: high, low: low))
        case .other, .unknown: .null
        }
    }
}
