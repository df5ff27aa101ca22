/// The Queue service's REST face of the storage folder.
///
/// Operations, statuses, headers and error codes are those of the Queue service.
public import EventLoops
internal import DurableStores
internal import FunctionApps
public import HTTPMessages
public import HTTPServers
internal import JSONText
public import StorageAccounts

/// Answers requests under `/devstoreaccount1/`.
@EventLoop
public final class QueueFace: HTTPResponder {
    private let account: FolderAccount
    private let key: [UInt8]

    public init(account: FolderAccount) {
        self.account = account
        key = decodeBase64(StorageConnection.developmentKey) ?? []
    }

    private var ledger: AccountLedger { account.ledger }

    public func refusal(_ error: HTTPParseError) -> HTTPResponse {
        ServiceAnswer.error(ServiceError(error.status, "InvalidHeaderValue", error.reason))
    }

    public func respond(to request: HTTPRequest) -> Eventual<HTTPResponse> {
        .awaiting { [self] in
            let response: HTTPResponse
            do throws(ServiceError) {
                response = try await answer(try StorageRequest(request, account: account.accountName, key: key))
            } catch {
                response = ServiceAnswer.error(error)
            }
            return ServiceAnswer.finish(response, for: request)
        }
    }

    private func done<Value>(_ result: Eventual<Result<Value, StoreError>>) async throws(ServiceError) -> Value {
        switch await result.value() {
        case .success(let value): return value
        case .failure(let error): throw ServiceError(.store(error))
        }
    }

    private func answer(_ request: StorageRequest) async throws(ServiceError) -> HTTPResponse {
        let parts = request.parts.flatMap { $0.split(separator: "/").map(String.init) }
        if parts.isEmpty {
            if request.query("comp") == "list" { return try await list(request) }
            if request.query("restype") == "service" {
                return request.method == "GET" ? ServiceAnswer.serviceProperties() : HTTPResponse(status: 202)
            }
        }
        guard let queue = parts.first else { throw Self.notImplemented(request) }
        guard isStorageName(queue) else {
            throw ServiceError(400, "InvalidResourceName", "The specified resource name contains invalid characters.")
        }
        switch (parts.count, parts.dropFirst().first) {
        case (1, _): return try await self.queue(request, queue)
        case (2, "messages"): return try await messages(request, queue)
        case (3, "messages"): return try await message(request, queue, guid: parts[2])
        default: throw Self.notImplemented(request)
        }
    }

    private static func notImplemented(_ request: StorageRequest) -> ServiceError {
        ServiceError(501, "NotImplemented", "\(request.method) on this resource is not served by this host.")
    }

    private static let noQueue = ServiceError(404, "QueueNotFound", "The specified queue does not exist.")

    // MARK: Queues

    private func list(_ request: StorageRequest) async throws(ServiceError) -> HTTPResponse {
        let prefix = request.query("prefix") ?? ""
        let marker = request.query("marker") ?? ""
        let limit = request.query("maxresults").flatMap { Int($0) } ?? 5000
        var queues = try await done(ledger.queues()).filter { $0.name.hasPrefix(prefix) && $0.name >= marker }
        let next = queues.count > limit ? queues[limit].name : ""
        if queues.count > limit { queues.removeLast(queues.count - limit) }
        var writer = XMLWriter()
        writer.open("EnumerationResults ServiceEndpoint=\"\"")
        writer.element("Prefix", prefix)
        writer.open("Queues")
        for queue in queues {
            writer.open("Queue")
            writer.name(queue.name)
            if request.query("include") == "metadata" {
                writer.open("Metadata")
                for pair in queue.metadata { writer.element(pair.name, pair.value) }
                writer.close("Metadata")
            }
            writer.close("Queue")
        }
        writer.close("Queues")
        writer.element("NextMarker", next)
        writer.close("EnumerationResults")
        return ServiceAnswer.xml(writer)
    }

    private func queue(_ request: StorageRequest, _ name: String) async throws(ServiceError) -> HTTPResponse {
        switch (request.method, request.query("comp")) {
        case ("PUT", nil):
            let metadata = request.metadata
            guard let known = try await done(ledger.createQueue(name, metadata: metadata)) else {
                return HTTPResponse(status: 201)
            }
            guard known.map({ "\($0)" }) == metadata.map({ "\($0)" }) else {
                throw ServiceError(409, "QueueAlreadyExists", "The specified queue already exists.")
            }
            return HTTPResponse(status: 204)
        case ("DELETE", nil):
            guard try await done(ledger.deleteQueue(name)) else { throw Self.noQueue }
            return HTTPResponse(status: 204)
        case ("GET", "metadata"), ("HEAD", "metadata"):
            guard let queue = try await done(ledger.queue(name)) else { throw Self.noQueue }
            var response = HTTPResponse(status: 200)
            response.fields.add("x-ms-approximate-messages-count", "\(queue.messageCount)")
            for pair in queue.metadata { response.fields.add("x-ms-meta-\(pair.name)", pair.value) }
            return response
        case ("PUT", "metadata"):
            guard try await done(ledger.setMetadata(of: name, request.metadata)) else { throw Self.noQueue }
            return HTTPResponse(status: 204)
        case ("GET", "acl"), ("HEAD", "acl"):
            var writer = XMLWriter()
            writer.element("SignedIdentifiers", "")
            return ServiceAnswer.xml(writer)
        default: throw Self.notImplemented(request)
        }
    }

    // MARK: Messages

    private func messages(_ request: StorageRequest, _ queue: String) async throws(ServiceError) -> HTTPResponse {
        guard try await done(ledger.queue(queue)) != nil else { throw Self.noQueue }
        switch request.method {
        case "POST": return try await put(request, queue)
        case "GET":
            let count = try number(request, "numofmessages", 1, in: 1...32)
            if request.query("peekonly")?.lowercased() == "true" {
                return list(try await done(ledger.peek(queue: queue, count: count)), isPeek: true)
            }
            let visibility = try number(request, "visibilitytimeout", 30, in: 1...604_800)
            return list(
                try await done(ledger.take(queue: queue, count: count, visibility: Double(visibility))), isPeek: false)
        case "DELETE":
            _ = try await done(ledger.clear(queue: queue))
            return HTTPResponse(status: 204)
        default: throw Self.notImplemented(request)
        }
    }

    private func number(
        _ request: StorageRequest, _ name: String, _ standard: Int, in range: ClosedRange<Int>
    ) throws(ServiceError) -> Int {
        guard let text = request.query(name) else { return standard }
        guard let number = Int(text), range.contains(number) else {
            throw ServiceError(
                400, "OutOfRangeQueryParameterValue",
                "\(name) is '\(text)'; it must be from \(range.lowerBound) to \(range.upperBound).")
        }
        return number
    }

    private func messageText(_ request: StorageRequest) throws(ServiceError) -> [UInt8] {
        guard let leaves = XMLReader.leaves(of: request.body),
            let text = leaves.first(where: { $0.name == "MessageText" })
        else { throw ServiceError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.") }
        guard text.text.utf8.count <= NewMessage.byteLimit else {
            throw ServiceError(
                413, "RequestBodyTooLarge", "The message has more than \(NewMessage.byteLimit) bytes.")
        }
        return Array(text.text.utf8)
    }

    private func put(_ request: StorageRequest, _ queue: String) async throws(ServiceError) -> HTTPResponse {
        let delay = try number(request, "visibilitytimeout", 0, in: 0...604_800)
        let life = try number(request, "messagettl", 604_800, in: -1...(.max))
        let message = NewMessage(body: try messageText(request), timeToLive: Double(life), delay: Double(delay))
        try await done(ledger.put([message], queue: queue))
        var writer = XMLWriter()
        writer.open("QueueMessagesList")
        writer.open("QueueMessage")
        writer.element("MessageId", message.guid)
        writer.element("InsertionTime", httpDate(message.inserted))
        writer.element("ExpirationTime", httpDate(message.expires))
        writer.element("PopReceipt", message.popReceipt)
        writer.element("TimeNextVisible", httpDate(max(message.visible, message.inserted)))
        writer.close("QueueMessage")
        writer.close("QueueMessagesList")
        return ServiceAnswer.xml(writer, status: 201)
    }

    private func list(_ messages: [QueueMessage], isPeek: Bool) -> HTTPResponse {
        var writer = XMLWriter()
        writer.open("QueueMessagesList")
        for message in messages {
            writer.open("QueueMessage")
            writer.element("MessageId", message.guid)
            writer.element("InsertionTime", httpDate(message.inserted))
            writer.element("ExpirationTime", httpDate(message.expires))
            if !isPeek {
                writer.element("PopReceipt", message.popReceipt)
                writer.element("TimeNextVisible", httpDate(max(message.visible, message.inserted)))
            }
            writer.element("DequeueCount", "\(message.dequeueCount)")
            writer.element("MessageText", String(decoding: message.body, as: UTF8.self))
            writer.close("QueueMessage")
        }
        writer.close("QueueMessagesList")
        return ServiceAnswer.xml(writer)
    }

    private func message(
        _ request: StorageRequest, _ queue: String, guid: String
    ) async throws(ServiceError) -> HTTPResponse {
        guard let receipt = request.query("popreceipt") else {
            throw ServiceError(
                400, "MissingRequiredQueryParameter", "A query parameter that's mandatory is missing: popreceipt.")
        }
        switch request.method {
        case "DELETE":
            guard try await done(ledger.delete(queue: queue, guid: guid, popReceipt: receipt)) else {
                throw try await missing(queue, guid)
            }
            return HTTPResponse(status: 204)
        case "PUT":
            let visibility = try number(request, "visibilitytimeout", 0, in: 0...604_800)
            let body = request.body.isEmpty ? nil : try messageText(request)
            let renewed = try await done(
                ledger.update(
                    queue: queue, guid: guid, popReceipt: receipt, visibility: Double(visibility), body: body))
            guard let renewed else { throw try await missing(queue, guid) }
            var response = HTTPResponse(status: 204)
            response.fields.add("x-ms-popreceipt", renewed.popReceipt)
            response.fields.add("x-ms-time-next-visible", httpDate(max(renewed.visible, wallClockSeconds())))
            return response
        default: throw Self.notImplemented(request)
        }
    }

    /// Whether a message is gone, or somebody else's.
    private func missing(_ queue: String, _ guid: String) async throws(ServiceError) -> ServiceError {
        try await done(ledger.hasMessage(queue: queue, guid: guid))
            ? ServiceError(
                400, "PopReceiptMismatch",
                "The specified pop receipt did not match the pop receipt for a dequeued message.")
            : ServiceError(404, "MessageNotFound", "The specified message does not exist.")
    }
}
