/// What a Service Bus message is to a function: its contents, and what binding expressions can name.
internal import AMQP
internal import EventLoops
internal import Invocations
internal import JSONText
internal import ServiceBus

extension BusMessage {
    /// The body as bytes; a value that is text is its UTF-8, other values are JSON.
    var contents: [UInt8] {
        switch message.body {
        case .none: return []
        case .data(let bytes): return bytes
        case .value(.string(let text)): return Array(text.utf8)
        case .value(.binary(let bytes)): return bytes
        case .value(let value):
            var writer = JSONWriter()
            value.write(to: &writer)
            return writer.bytes
        case .sequence(let values):
            var writer = JSONWriter()
            AMQPValue.list(values).write(to: &writer)
            return writer.bytes
        }
    }

    /// What tells one message of a plain broker from another: its id, or its bytes.
    var identity: SHA256Digest {
        if case .null = message.properties.messageID { return SHA256Digest(of: contents) }
        return SHA256Digest(of: Array("\(message.properties.messageID)".utf8))
    }
}

extension AMQPValue {
    /// As JSON; times are milliseconds, binary is text as far as it is.
    func write(to writer: inout JSONWriter) {
        switch self {
        case .null, .decimal: writer.null()
        case .bool(let value): writer.bool(value)
        case .float(let value): writer.number(Double(value))
        case .double(let value): writer.number(value)
        case .ulong(let value): writer.integer(value)
        case .string(let value), .symbol(let value): writer.string(value)
        case .binary(let value): writer.string(String(decoding: value, as: UTF8.self))
        case .uuid(let value): writer.string(value.description)
        case .char(let value): writer.string(UnicodeScalar(value).map { String($0) } ?? "")
        case .list(let values), .array(let values):
            writer.beginArray()
            for value in values { value.write(to: &writer) }
            writer.endArray()
        case .map(let pairs):
            writer.beginObject()
            for pair in pairs {
                writer.name(pair.key.text ?? pair.key.integer.map { "\($0)" } ?? "\(pair.key)")
                pair.value.write(to: &writer)
            }
            writer.endObject()
        case .described(_, let value): value.write(to: &writer)
        default: writer.integer(integer ?? 0)
        }
    }

    /// As a value that expressions can name.
    var bindingValue: BindingValue {
        switch self {
        case .timestamp(let milliseconds): return .time(Double(milliseconds) / 1000)
        case .string(let text), .symbol(let text): return .text(text)
        case .uuid(let uuid): return .text(uuid.description)
        default:
            if let integer { return .integer(Int(integer)) }
            var writer = JSONWriter()
            write(to: &writer)
            return (try? JSONParser.parse(writer.bytes)).map { .json($0) } ?? .text("")
        }
    }
}

/// The names of the extension's binding data with one message's values (ServiceBusTriggerBindingStrategy). What a
/// message does not have is null, which expressions take for empty text.
@EventLoop
private func values(_ message: BusMessage, deliveryCount: Int) -> [(name: String, value: BindingValue)] {
    let properties = message.message.properties
    let text = { (text: String?) in text.map { BindingValue.text($0) } ?? .json(.null) }
    let annotation = { @EventLoop (name: String) in message.annotation(name)?.bindingValue ?? .json(.null) }
    let own = BindingValue.object(
        message.message.applicationProperties.compactMap { pair in
            pair.key.text.map { ($0, pair.value.bindingValue) }
        })
    let enqueued = annotation("x-opt-enqueued-time")
    // A message without a time to live keeps for ever: DateTimeOffset.MaxValue.
    var expires = BindingValue.time(253_402_300_799)
    if let start = message.annotation("x-opt-enqueued-time")?.integer, let span = message.message.header.timeToLive {
        expires = .time(Double(start + Int64(span)) / 1000)
    }
    return [
        ("DeliveryCount", .integer(deliveryCount)),
        ("DeadLetterSource", annotation("x-opt-deadletter-source")),
        ("LockToken", text(message.lockToken?.description)), ("ExpiresAtUtc", expires), ("ExpiresAt", expires),
        ("EnqueuedTimeUtc", enqueued), ("EnqueuedTime", enqueued),
        ("MessageId", properties.messageID.bindingValue),
        ("ContentType", text(properties.contentType)), ("ReplyTo", text(properties.replyTo)),
        ("SequenceNumber", annotation("x-opt-sequence-number")), ("To", text(properties.to)),
        ("Subject", text(properties.subject)), ("Label", text(properties.subject)),
        ("CorrelationId", properties.correlationID.bindingValue),
        ("ApplicationProperties", own), ("UserProperties", own), ("SessionId", text(properties.groupID)),
        ("ReplyToSessionId", text(properties.replyToGroupID)),
        ("PartitionKey", annotation("x-opt-partition-key")),
        ("TransactionPartitionKey", annotation("x-opt-via-partition-key")),
    ]
}

/// Binding data of a single message: its metadata, over them the properties of a JSON body.
@EventLoop
func triggerData(_ message: BusMessage, deliveryCount: Int) -> BindingData {
    var data = BindingData()
    for (name, value) in values(message, deliveryCount: deliveryCount) { data.set(name, value) }
    let contents = message.contents
    if contents.first(where: { $0 > 0x20 }) == UInt8(ascii: "{"), let json = try? JSONParser.parse(contents) {
        data.set(properties: json)
    }
    return data
}

/// Binding data of a batch: every name with `Array` behind it.
@EventLoop
func batchData(_ messages: [BusMessage], deliveryCount: (BusMessage) -> Int) -> BindingData {
    var data = BindingData()
    let rows = messages.map { values($0, deliveryCount: deliveryCount($0)) }
    for (column, first) in (rows.first ?? []).enumerated() {
        var writer = JSONWriter()
        writer.beginArray()
        for row in rows { row[column].value.write(to: &writer) }
        writer.endArray()
        if let json = try? JSONParser.parse(writer.bytes) { data.set(first.name + "Array", .json(json)) }
    }
    return data
}

/// A batch as a function gets it: a JSON array of the bodies as text.
@EventLoop
func batchBody(_ messages: [BusMessage]) -> [UInt8] {
    var writer = JSONWriter()
    writer.beginArray()
    for message in messages { writer.string(String(decoding: message.contents, as: UTF8.self)) }
    writer.endArray()
    return writer.bytes
}
