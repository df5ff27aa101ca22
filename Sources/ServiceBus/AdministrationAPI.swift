/// The administration of Service Bus over HTTP, as `ServiceBusAdministrationClient` speaks it (Atom), and `/health`.
internal import Diagnostics
public import EventLoops
public import HTTPMessages
public import HTTPServers

/// Creates, reads, changes, lists and deletes queues. Its port is the emulator's, 5300.
@EventLoop
public final class AdministrationAPI: HTTPResponder {
    private let broker: Broker
    private var listener: HTTPListener?

    /// The emulator's port for administration and health.
    public static let defaultPort = 5300
    /// Entries in one answer at most.
    static let pageCount = 1000

    /// - Throws: ``ServiceBusError`` when the port cannot be had.
    public init(broker: Broker, address: String, port: Int) throws(ServiceBusError) {
        self.broker = broker
        do throws(SystemError) {
            listener = try HTTPListener(address: address, port: port, limits: HTTPLimits(), responder: self)
        } catch {
            throw .port(
                name: "administration", reason: error.message, setting: "ANDIRON_SERVICEBUS_ADMIN_PORT")
        }
    }

    public var port: Int { listener?.port ?? 0 }

    public func close() { listener?.close() }

    public func refusal(_ error: HTTPParseError) -> HTTPResponse { failure(error.status, error.reason) }

    public func respond(to request: HTTPRequest) -> Eventual<HTTPResponse> {
        let path = (PercentCoding.decode(request.head.path) ?? "/").split(separator: "/").joined(separator: "/")
        if path == "health" {
            return .now(
                .json(200, Array(#"{"status":"healthy","message":"Service is healthy."}"#.utf8)))
        }
        if let reason = refusal(request.head) { return .now(failure(401, reason)) }
        let base = "http://\(request.head.value("host") ?? "localhost")"
        switch (request.head.method, path.lowercased()) {
        case ("GET", "$resources/queues"): return .now(list(request, base))
        case ("GET", "$namespaceinfo"): return .now(namespace(base))
        case ("GET", _): return .now(read(path, base))
        case ("PUT", _): return write(path, request, base)
        case ("DELETE", _):
            guard let queue = broker.queue(named: path), queue.kind == .queue else { return .now(missing(path)) }
            return afterCommit(HTTPResponse(status: 200)) { [broker] done in broker.delete(queue, then: done) }
        default: return .now(failure(405, "the method is not supported"))
        }
    }

    private func refusal(_ head: RequestHead) -> String? {
        if broker.keys.isEmpty { return nil }
        return AccessRights(broker: broker).put(token: head.value("authorization") ?? "", audience: "")
    }

    // MARK: Answers

    private func xml(_ status: Int, _ text: String) -> HTTPResponse {
        HTTPResponse(
            status: status, contentType: "application/atom+xml;type=entry;charset=utf-8", body: Array(text.utf8))
    }

    private func failure(_ status: Int, _ detail: String) -> HTTPResponse {
        HTTPResponse(
            status: status, contentType: "application/xml; charset=utf-8",
            body: Array("<Error><Code>\(status)</Code><Detail>\(xmlEscape(detail))</Detail></Error>".utf8))
    }

    private func missing(_ path: String) -> HTTPResponse {
        failure(404, "SubCode=40400. Not Found. The operation cannot find '\(path)'.")
    }

    private func afterCommit(
        _ response: HTTPResponse, _ change: @escaping @EventLoop (@escaping @EventLoop (SystemError?) -> Void) -> Void
    ) -> Eventual<HTTPResponse> {
        .later { [self] done in
            change { error in done(error == nil ? response : self.failure(507, "the message store is full")) }
            broker.wake()
        }
    }

    private func read(_ path: String, _ base: String) -> HTTPResponse {
        guard let queue = broker.queue(named: path), queue.kind == .queue else {
            // Clients recognise what is not there by an empty feed.
            return xml(200, QueueDescription.feed([], title: "Publicly Listed Services", base: base, next: nil))
        }
        return xml(200, QueueDescription.entry(queue, base: base))
    }

    private func list(_ request: HTTPRequest, _ base: String) -> HTTPResponse {
        let query = PercentCoding.query(request.head.query)
        let number = { (name: String) in query.last { $0.name.lowercased() == name }.flatMap { Int($0.value) } }
        let skip = max(0, number("$skip") ?? 0)
        let top = min(max(1, number("$top") ?? 100), Self.pageCount)
        let all = broker.allQueues.filter { !$0.settings.isTopic && $0.settings.rules.isEmpty }
        let page = all.dropFirst(skip).prefix(top)
        let next =
            skip + top < all.count ? "\(base)/$Resources/queues?$skip=\(skip + top)&$top=\(top)" : nil
        return xml(
            200,
            QueueDescription.feed(
                page.map { QueueDescription.entry($0, base: base) }, title: "Queues",
                base: "\(base)/$Resources/queues?$skip=\(skip)&$top=\(top)", next: next))
    }

    private func namespace(_ base: String) -> HTTPResponse {
        let time = HTTPDate.iso(wallMilliseconds())
        let content =
            "<NamespaceInfo xmlns=\"http://schemas.microsoft.com/netservices/2010/10/servicebus/connect\"><CreatedTime>\(time)</CreatedTime><MessagingSKU>Standard</MessagingSKU><ModifiedTime>\(time)</ModifiedTime><Name>sbemulatorns</Name><NamespaceType>Messaging</NamespaceType></NamespaceInfo>"
        let now = wallMilliseconds()
        return xml(
            200,
            QueueDescription.entry(name: "sbemulatorns", base: base, published: now, updated: now, content: content))
    }

    private func write(_ path: String, _ request: HTTPRequest, _ base: String) -> Eventual<HTTPResponse> {
        guard EntityName.isValid(path) else {
            return .now(failure(400, "SubCode=40000. '\(path)' is no name of a queue: \(EntityName.rule)"))
        }
        let document: XMLNode
        do throws(XMLNode.SyntaxError) {
            document = try XMLNode.parse(request.body)
        } catch {
            return .now(failure(400, "SubCode=40000. \(error.reason), at byte \(error.offset)"))
        }
        guard let description = document.first("QueueDescription") else {
            return .now(failure(501, "only queues can be created here"))
        }
        let existing = broker.queue(named: path)
        let isUpdate = request.head.value("if-match") != nil
        if existing != nil, !isUpdate { return .now(failure(409, "SubCode=40900. Conflict.")) }
        if existing == nil, isUpdate { return .now(missing(path)) }
        guard existing != nil || broker.allQueues.count < ServiceBusLimits.entityCount else {
            return .now(failure(403, "there are \(ServiceBusLimits.entityCount) queues already"))
        }
        do throws(QueueDescription.Refusal) {
            let settings = try QueueDescription.settings(description, over: existing?.settings ?? QueueSettings())
            if let existing,
                settings.requiresSession != existing.settings.requiresSession
                    || settings.requiresDuplicateDetection != existing.settings.requiresDuplicateDetection
            {
                return .now(
                    failure(400, "SubCode=40000. RequiresSession and RequiresDuplicateDetection cannot be changed"))
            }
            return .later { [self] done in
                let finish = { @EventLoop [self] (error: SystemError?) in
                    guard error == nil, let queue = broker.queue(named: path) else {
                        return done(failure(507, "the message store is full"))
                    }
                    done(xml(existing == nil ? 201 : 200, QueueDescription.entry(queue, base: base)))
                }
                if let existing {
                    broker.update(existing, settings, then: finish)
                } else {
                    broker.createQueue(path, settings, then: finish)
                }
                broker.wake()
            }
        } catch {
            return .now(failure(400, "SubCode=40000. \(error.reason)"))
        }
    }
}

extension MessageQueue {
    /// All messages, dead letters included, as Azure counts them.
    var totalCount: Int {
        activeCount + deferredCount + scheduledCount + (deadLetters?.activeCount ?? 0)
            + (transferDeadLetters?.activeCount ?? 0)
    }
}
