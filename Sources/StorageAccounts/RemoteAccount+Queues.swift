/// Queues of another storage service.
internal import EventLoops
internal import HTTPClients

extension RemoteAccount: QueueStore {
    private func call(
        _ method: String, _ path: String, query: [(name: String, value: String)] = [], body: [UInt8] = [],
        accepting: Set<Int>
    ) async throws(StorageError) -> HTTPClientResponse {
        try await send(method, path, query: query, body: body, toQueues: true, accepting: accepting)
    }

    private func document(_ body: [UInt8]) -> [UInt8] {
        var writer = XMLWriter()
        writer.open("QueueMessage")
        writer.element("MessageText", String(decoding: body, as: UTF8.self))
        writer.close("QueueMessage")
        return writer.bytes
    }

    public func put(_ messages: [NewMessage], queue: String) async throws(StorageError) {
        for message in messages {
            let body = document(message.body)
            let response = try await call("POST", "/\(queue)/messages", body: body, accepting: [201, 404])
            guard response.status == 404 else { continue }
            _ = try await call("PUT", "/\(queue)", accepting: [201, 204, 409])
            _ = try await call("POST", "/\(queue)/messages", body: body, accepting: [201])
        }
    }

    public func take(queue: String, count: Int, visibility: Double) async throws(StorageError) -> [QueueMessage] {
        let query = [
            (name: "numofmessages", value: "\(min(count, 32))"),
            ("visibilitytimeout", "\(Int(visibility.rounded(.up)))"),
        ]
        let response = try await call("GET", "/\(queue)/messages", query: query, accepting: [200, 404])
        guard response.status == 200, let leaves = XMLReader.leaves(of: response.body) else { return [] }
        var messages: [QueueMessage] = []
        var fields: [String: String] = [:]
        for leaf in leaves {
            fields[leaf.name] = leaf.text
            guard leaf.name == "MessageText" else { continue }
            let date = { (name: String) in fields[name].flatMap(parseHTTPDate) ?? 0 }
            messages.append(
                QueueMessage(
                    guid: fields["MessageId"] ?? "", body: Array(leaf.text.utf8), inserted: date("InsertionTime"),
                    expires: date("ExpirationTime"), visible: date("TimeNextVisible"),
                    dequeueCount: fields["DequeueCount"].flatMap { Int($0) } ?? 1,
                    popReceipt: fields["PopReceipt"] ?? ""))
            fields = [:]
        }
        return messages
    }

    public func delete(_ message: QueueMessage, queue: String) async throws(StorageError) -> Bool {
        let response = try await call(
            "DELETE", "/\(queue)/messages/\(message.guid)", query: [("popreceipt", message.popReceipt)],
            accepting: [204, 400, 404])
        return response.status == 204
    }

    public func update(
        _ message: QueueMessage, queue: String, visibility: Double
    ) async throws(StorageError) -> QueueMessage? {
        let query = [
            (name: "popreceipt", value: message.popReceipt), ("visibilitytimeout", "\(Int(visibility.rounded(.up)))"),
        ]
        let response = try await call(
            "PUT", "/\(queue)/messages/\(message.guid)", query: query, accepting: [204, 400, 404])
        guard response.status == 204 else { return nil }
        return message.renewed(
            popReceipt: response.header("x-ms-popreceipt") ?? message.popReceipt,
            visible: response.header("x-ms-time-next-visible").flatMap(parseHTTPDate) ?? 0)
    }

    public func move(_ message: QueueMessage, from queue: String, to other: String) async throws(StorageError) {
        try await put([NewMessage(body: message.body)], queue: other)
        _ = try await delete(message, queue: queue)
    }
}
