/// Receipts and messages as JSON, for the admin API and the command line.
internal import FunctionApps
internal import JSONText

/// Receipts as a JSON array.
public func receiptsDocument(_ receipts: [Receipt]) -> [UInt8] {
    var writer = JSONWriter()
    writer.beginArray()
    for receipt in receipts {
        writer.beginObject()
        writer.member("function", receipt.key.function)
        writer.member("blob", "\(receipt.key.container)/\(receipt.key.name)")
        writer.member("etag", receipt.key.etag)
        writer.member("state", receipt.state.word)
        writer.member("attempts", receipt.attempts)
        writer.member("updated", httpDate(receipt.updated))
        writer.endObject()
    }
    writer.endArray()
    return writer.bytes
}

/// Messages as a JSON array; bodies that are Base64 of text are shown as that text.
public func messagesDocument(_ messages: [QueueMessage]) -> [UInt8] {
    var writer = JSONWriter()
    writer.beginArray()
    for message in messages {
        writer.beginObject()
        writer.member("id", message.guid)
        let text = String(decoding: message.body, as: UTF8.self)
        let decoded = decodeBase64(text).flatMap { String(validating: $0, as: UTF8.self) }
        writer.member("body", decoded ?? text)
        writer.member("inserted", httpDate(message.inserted))
        writer.member("dequeueCount", message.dequeueCount)
        writer.endObject()
    }
    writer.endArray()
    return writer.bytes
}
