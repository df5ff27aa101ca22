/// The administration of Service Bus over HTTP, as `ServiceBusAdministrationClient` speaks it (Atom), and `/health`.
internal import AMQP
internal import Diagnostics
public import EventLoops
public import HTTPMessages
public import HTTPServers

/// Creates, reads, changes, lists and deletes queues, topics, subscriptions and rules. Its port is the emulator's, 5300.
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
        guard let target = AdministrationTarget(path) else {
            return .now(failure(400, "'\(path)' is no entity's path"))
        }
        switch (request.head.method, target) {
        case ("GET", .namespace): return .now(namespace(base))
        case ("GET", .queues), ("GET", .topics), ("GET", .subscriptions), ("GET", .rules):
            return .now(list(target, request, path, base))
        case ("GET", .entity), ("GET", .subscription), ("GET", .rule): return .now(read(target, base))
        case ("PUT", .entity), ("PUT", .subscription), ("PUT", .rule): return write(target, request, base)
        case ("DELETE", .entity), ("DELETE", .subscription), ("DELETE", .rule): return delete(target)
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

    /// The queue, topic or subscription that a request is about.
    private func entity(_ target: AdministrationTarget) -> MessageQueue? {
        switch target {
        case .entity(let name):
            return broker.queue(named: name).flatMap { $0.kind == .queue && !$0.isSubscription ? $0 : nil }
        case .subscriptions(let topic): return entity(.entity(topic)).flatMap { $0.settings.isTopic ? $0 : nil }
        case .subscription(let topic, let name), .rule(let topic, let name, _), .rules(let topic, let name):
            return broker.queue(named: Broker.subscriptionPath(topic, name))
        case .namespace, .queues, .topics: return nil
        }
    }

    private func entry(_ queue: MessageQueue, _ base: String) -> String {
        if queue.isSubscription { return SubscriptionDescription.entry(queue, base: base) }
        return queue.settings.isTopic
            ? TopicDescription.entry(queue, base: base) : QueueDescription.entry(queue, base: base)
    }

    private func read(_ target: AdministrationTarget, _ base: String) -> HTTPResponse {
        if let queue = entity(target) {
            guard case .rule(_, _, let name) = target else { return xml(200, entry(queue, base)) }
            if let rule = queue.settings.rules.first(where: { $0.name.lowercased() == name.lowercased() }) {
                return xml(200, RuleDescription.entry(rule, path: queue.name, base: base))
            }
        }
        // Clients recognise what is not there by an empty feed.
        return xml(
            200,
            AtomDescription.feed(
                [], title: "Publicly Listed Services", base: base, next: nil, now: wallMilliseconds()))
    }

    private func delete(_ target: AdministrationTarget) -> Eventual<HTTPResponse> {
        guard let queue = entity(target) else { return .now(missing(target.path)) }
        guard case .rule(_, _, let name) = target else {
            return afterCommit(HTTPResponse(status: 200)) { [broker] done in broker.delete(queue, then: done) }
        }
        return .later { [self] done in
            let finish = { @EventLoop (error: SystemError?) in
                done(error == nil ? HTTPResponse(status: 200) : self.failure(507, "the message store is full"))
            }
            if let error = broker.removeRule(name, from: queue, then: finish) { return done(refused(error)) }
            broker.wake()
        }
    }

    private func list(
        _ target: AdministrationTarget, _ request: HTTPRequest, _ path: String, _ base: String
    ) -> HTTPResponse {
        let all: [() -> String]
        switch target {
        case .queues, .topics:
            let wantsTopics = target == .topics
            all = broker.allQueues.filter { !$0.isSubscription && $0.settings.isTopic == wantsTopics }
                .map { queue in { self.entry(queue, base) } }
        case .subscriptions:
            guard let topic = entity(target) else { return missing(path) }
            all = topic.subscriptions.sorted { $0.name < $1.name }.map { queue in { self.entry(queue, base) } }
        default:
            guard let subscription = entity(target) else { return missing(path) }
            all = subscription.settings.rules.map { rule in
                { RuleDescription.entry(rule, path: subscription.name, base: base) }
            }
        }
        let query = PercentCoding.query(request.head.query)
        let number = { (name: String) in query.last { $0.name.lowercased() == name }.flatMap { Int($0.value) } }
        let skip = max(0, number("$skip") ?? 0)
        let top = min(max(1, number("$top") ?? 100), Self.pageCount)
        let page = all.dropFirst(skip).prefix(top)
        let next = skip + top < all.count ? "\(base)/\(path)?$skip=\(skip + top)&$top=\(top)" : nil
        return xml(
            200,
            AtomDescription.feed(
                page.map { $0() }, title: target.title, base: "\(base)/\(path)?$skip=\(skip)&$top=\(top)", next: next,
                now: wallMilliseconds()))
    }

    private func namespace(_ base: String) -> HTTPResponse {
        let time = HTTPDate.iso(wallMilliseconds())
        let content =
            "<NamespaceInfo xmlns=\"http://schemas.microsoft.com/netservices/2010/10/servicebus/connect\"><CreatedTime>\(time)</CreatedTime><MessagingSKU>Standard</MessagingSKU><ModifiedTime>\(time)</ModifiedTime><Name>sbemulatorns</Name><NamespaceType>Messaging</NamespaceType></NamespaceInfo>"
        let now = wallMilliseconds()
        return xml(
            200,
            AtomDescription.entry(name: "sbemulatorns", base: base, published: now, updated: now, content: content))
    }

    /// A status for an error of the broker's own.
    private func refused(_ error: AMQPError) -> HTTPResponse {
        let status = Int(ManagementAnswer.refusal(error).status)
        return failure(status, "SubCode=\(status)00. \(error.text)")
    }

    private func write(
        _ target: AdministrationTarget, _ request: HTTPRequest, _ base: String
    ) -> Eventual<HTTPResponse> {
        guard target.hasValidNames else {
            return .now(failure(400, "SubCode=40000. '\(target.path)' is no name of an entity: \(EntityName.rule)"))
        }
        let document: XMLNode
        do throws(XMLNode.SyntaxError) {
            document = try XMLNode.parse(request.body)
        } catch {
            return .now(failure(400, "SubCode=40000. \(error.reason), at byte \(error.offset)"))
        }
        let isUpdate = request.head.value("if-match") != nil
        if case .rule = target { return writeRule(target, document, isUpdate, base) }
        let existing = entity(target)
        if existing != nil, !isUpdate { return .now(failure(409, "SubCode=40900. Conflict.")) }
        if existing == nil, isUpdate { return .now(missing(target.path)) }
        guard existing != nil || broker.allQueues.count < ServiceBusLimits.entityCount else {
            return .now(failure(403, "there are \(ServiceBusLimits.entityCount) entities already"))
        }
        do throws(AtomDescription.Refusal) {
            let (path, settings) = try wanted(target, document, existing?.settings)
            if let existing,
                settings.requiresSession != existing.settings.requiresSession
                    || settings.requiresDuplicateDetection != existing.settings.requiresDuplicateDetection
                    || settings.isTopic != existing.settings.isTopic
            {
                return .now(
                    failure(
                        400,
                        "SubCode=40000. RequiresSession, RequiresDuplicateDetection and the kind cannot be changed"))
            }
            return store(path, settings, existing, base)
        } catch {
            return .now(failure(400, "SubCode=40000. \(error.reason)"))
        }
    }

    /// Path and settings that a description asks for.
    private func wanted(
        _ target: AdministrationTarget, _ document: XMLNode, _ old: QueueSettings?
    ) throws(AtomDescription.Refusal) -> (String, QueueSettings) {
        let old = old ?? QueueSettings()
        if case .subscription(let topic, let name) = target {
            guard let topic = entity(.subscriptions(topic: topic)) else {
                throw AtomDescription.Refusal(reason: "there is no topic '\(topic)'")
            }
            guard let description = document.first("SubscriptionDescription") else {
                throw AtomDescription.Refusal(reason: "a SubscriptionDescription was expected")
            }
            return (
                Broker.subscriptionPath(topic.name, name), try SubscriptionDescription.settings(description, over: old)
            )
        }
        if let description = document.first("TopicDescription") {
            return (target.path, try TopicDescription.settings(description, over: old))
        }
        guard let description = document.first("QueueDescription") else {
            throw AtomDescription.Refusal(reason: "a QueueDescription or a TopicDescription was expected")
        }
        guard !old.isTopic else { throw AtomDescription.Refusal(reason: "'\(target.path)' is a topic") }
        return (target.path, try QueueDescription.settings(description, over: old))
    }

    private func store(
        _ path: String, _ settings: QueueSettings, _ existing: MessageQueue?, _ base: String
    ) -> Eventual<HTTPResponse> {
        .later { [self] done in
            let finish = { @EventLoop [self] (error: SystemError?) in
                guard error == nil, let queue = broker.queue(named: path) else {
                    return done(failure(507, "the message store is full"))
                }
                done(xml(existing == nil ? 201 : 200, entry(queue, base)))
            }
            if let existing {
                broker.update(existing, settings, then: finish)
            } else {
                broker.createQueue(path, settings, then: finish)
            }
            broker.wake()
        }
    }

    private func writeRule(
        _ target: AdministrationTarget, _ document: XMLNode, _ isUpdate: Bool, _ base: String
    ) -> Eventual<HTTPResponse> {
        guard case .rule(_, _, let name) = target, let subscription = entity(target) else {
            return .now(missing(target.path))
        }
        guard let description = document.first("RuleDescription") else {
            return .now(failure(400, "SubCode=40000. a RuleDescription was expected"))
        }
        let rule: SubscriptionRule
        do throws(AtomDescription.Refusal) {
            rule = try RuleDescription.rule(description, name: name)
        } catch {
            return .now(failure(400, "SubCode=40000. \(error.reason)"))
        }
        return .later { [self] done in
            let finish = { @EventLoop [self] (error: SystemError?) in
                let stored = subscription.settings.rules.first { $0.name.lowercased() == name.lowercased() }
                guard error == nil, let stored else { return done(failure(507, "the message store is full")) }
                done(xml(isUpdate ? 200 : 201, RuleDescription.entry(stored, path: subscription.name, base: base)))
            }
            if let error = broker.put(rule, to: subscription, replacing: isUpdate, then: finish) {
                return done(refused(error))
            }
            broker.wake()
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
