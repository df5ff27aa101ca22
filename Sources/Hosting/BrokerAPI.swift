/// What the command line asks a running host about its broker, below `/admin/servicebus/`, and the broker's REST face.
internal import Diagnostics
internal import EventLoops
internal import HTTPMessages
internal import HTTPServers
internal import Invocations
internal import JSONText
internal import ServiceBus

/// Queues and their messages over HTTP.
@EventLoop
final class BrokerAPI {
    private unowned let host: FunctionHost
    private static let prefix = Array("/admin/servicebus/".utf8)

    init(host: FunctionHost) { self.host = host }

    /// Answers Service Bus's own REST calls; nil for everything else.
    func rest(_ request: HTTPRequest) -> Eventual<HTTPResponse>? {
        guard let broker = host.embeddedBroker.broker else { return nil }
        return BrokerREST(broker: broker, base: host.url).respond(to: request)
    }

    /// Answers what the command line asks; nil for everything else.
    func respond(to request: HTTPRequest, _ admin: AdminAPI) -> Eventual<HTTPResponse>? {
        guard request.head.path.starts(with: Self.prefix) else { return nil }
        if let refusal = admin.refusal(request.head) { return .now(refusal) }
        guard let broker = host.embeddedBroker.broker else {
            return .now(
                errorResponse(
                    404, code: "AN8010", "the broker does not run",
                    remedy: "start the host with --servicebus-port, or with a function that has a Service Bus binding"))
        }
        let operation = String(decoding: request.head.path.dropFirst(Self.prefix.count), as: UTF8.self)
        let body = (try? JSONParser.parse(request.body)) ?? JSONValue(.object([]))
        if operation == "queues", request.head.isMethod("GET") { return .now(.json(200, broker.queuesDocument)) }
        guard request.head.isMethod("POST") else { return .now(HTTPResponse(status: 405)) }
        if operation == "trigger" { return trigger(body, broker) }
        let name = body["queue"]?.string ?? ""
        guard let queue = broker.queue(named: name) else {
            return .now(missing(name, broker))
        }
        switch operation {
        case "peek":
            let count = min(body["count"]?.integer ?? 10, ServiceBusLimits.peekCount)
            return .now(.json(200, broker.messagesDocument(queue, from: body["from"]?.integer ?? 0, count: count)))
        case "purge": return counted(broker.purge(queue))
        case "move", "resubmit":
            let target = body["to"]?.string
            guard let target, let other = broker.queue(named: target) else {
                return .now(missing(target ?? "", broker))
            }
            // Sent to a topic, messages that no rule takes would be gone.
            guard !other.settings.isTopic else {
                return .now(
                    errorResponse(
                        400, code: "AN8011", "'\(other.name)' is a topic", remedy: "move to one of its subscriptions"))
            }
            return counted(broker.move(from: queue, to: other, count: body["count"]?.integer ?? .max))
        default: return .now(HTTPResponse(status: 404))
        }
    }

    private func missing(_ name: String, _ broker: Broker) -> HTTPResponse {
        errorResponse(
            404, code: "AN8011", "there is no queue '\(name)'",
            remedy: nearest(to: name, among: broker.allQueues.map(\.name)).map { "did you mean '\($0)'?" }
                ?? "`andiron queue ls` lists those there are")
    }

    private func counted(_ result: Eventual<Result<Int, ServiceBusError>>) -> Eventual<HTTPResponse> {
        result.map { result in
            switch result {
            case .success(let count): .json(200, jsonObject { $0.member("messages", count) })
            case .failure(let error): errorResponse(507, code: error.code, error.message, remedy: error.remedy)
            }
        }
    }

    /// Sends a message to a function's own queue.
    private func trigger(_ body: JSONValue, _ broker: Broker) -> Eventual<HTTPResponse> {
        let name = body["function"]?.string ?? ""
        let runtime = host.runtimes.first { $0.metadata.name.lowercased() == name.lowercased() }
        let trigger = runtime?.metadata.bindings.first { $0.type.lowercased() == "servicebustrigger" }
        guard let trigger, let queue = broker.queue(named: host.busEntity(trigger)) else {
            return .now(
                errorResponse(404, code: "AN8011", "'\(name)' is no function with a queue of the broker in this host"))
        }
        let text = Array((body["body"]?.string ?? "").utf8)
        return broker.send(body: text, sessionID: body["sessionId"]?.string, to: queue).map { error in
            if let error { return errorResponse(400, code: "AN8011", "\(error)") }
            return .json(200, jsonObject { $0.member("queue", queue.name) })
        }
    }
}
