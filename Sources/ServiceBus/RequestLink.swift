/// Requests to `$cbs` and `$management` and the links their answers take.
internal import AMQP
internal import EventLoops

/// An answer to a request.
struct ManagementAnswer {
    var status: Int32 = 200
    var text = "OK"
    var condition: String?
    var body: [AMQPPair] = []

    static func failure(_ status: Int32, _ error: AMQPError) -> ManagementAnswer {
        ManagementAnswer(status: status, text: error.text, condition: error.condition)
    }

    /// Nothing was found, which is no failure.
    static func empty(_ error: AMQPError) -> ManagementAnswer {
        ManagementAnswer(status: 204, text: "No Content", condition: error.condition)
    }

    static func arguments(_ text: String) -> ManagementAnswer {
        failure(400, AMQPError("com.microsoft:argument-error", text))
    }
}

/// The link that carries answers; it only has to exist.
@EventLoop
final class ReplyLink: @EventLoop AMQPLinkHandler {
    private unowned let connection: BrokerConnection
    private var waiting: [[UInt8]] = []

    init(connection: BrokerConnection) { self.connection = connection }

    /// Sends an answer, when the client has given credit for it.
    func send(_ message: [UInt8], on link: AMQPLink) {
        waiting.append(message)
        linkHasCredit(link)
    }

    func linkHasCredit(_ link: AMQPLink) {
        while !waiting.isEmpty, link.canSend {
            let message = waiting.removeFirst()
            let tag = AMQPTag(counter: UInt32(truncatingIfNeeded: message.count))
            link.send(tag: tag, settled: true) { $0.bytes.append(contentsOf: message) }
        }
    }

    func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) { connection.forget(link) }
}

/// A client's link for requests.
@EventLoop
final class RequestLink {
    private unowned let connection: BrokerConnection
    private let path: EntityPath
    private let address: String

    init(connection: BrokerConnection, path: EntityPath, address: String) {
        self.connection = connection
        self.path = path
        self.address = address
    }

    private func claims(_ request: AMQPMessage) -> ManagementAnswer {
        let properties = AMQPValue.map(request.applicationProperties)
        guard case .value(let value) = request.body, let token = value.text else {
            return .arguments("a token is expected as an AMQP value")
        }
        let audience = properties["name"]?.text ?? ""
        if let reason = connection.access.put(token: token, audience: audience) {
            return ManagementAnswer(status: 401, text: reason, condition: "amqp:unauthorized-access")
        }
        connection.rightsChanged()
        return ManagementAnswer(status: 202, text: "Accepted")
    }

    /// Sends the answer in the words of the node: `status-code` for claims, `statusCode` for management.
    private func reply(_ answer: ManagementAnswer, to request: AMQPMessage) {
        guard let link = connection.replyLink(request.properties.replyTo, from: address),
            let sender = link.handler as? ReplyLink
        else { return }
        var message = AMQPMessage()
        message.properties.correlationID = request.properties.messageID
        message.properties.to = request.properties.replyTo
        if path.node == .claims {
            message.applicationProperties = [
                AMQPPair(string: "status-code", .int(answer.status)),
                AMQPPair(string: "status-description", .string(answer.text)),
            ]
        } else {
            message.applicationProperties = [
                AMQPPair(string: "statusCode", .int(answer.status)),
                AMQPPair(string: "statusDescription", .string(answer.text)),
            ]
            if let condition = answer.condition {
                message.applicationProperties.append(AMQPPair(string: "errorCondition", .symbol(condition)))
            }
            message.body = .value(.map(answer.body))
        }
        sender.send(message.encoded, on: link)
    }
}

extension RequestLink: @EventLoop AMQPLinkHandler {
    func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {
        if !delivery.isSettled {
            link.session.settle(first: delivery.id, last: delivery.id, .accepted, asSender: false)
        }
        let request: AMQPMessage
        do throws(AMQPError) {
            request = try AMQPMessage(payload)
        } catch {
            var nameless = AMQPMessage()
            nameless.properties.correlationID = .null
            return reply(.failure(400, error), to: nameless)
        }
        if path.node == .claims { return reply(claims(request), to: request) }
        guard connection.access.allows(path.entity) else {
            let error = AMQPError("amqp:unauthorized-access", "ExpiredToken: The token is expired.")
            return reply(.failure(401, error), to: request)
        }
        guard let queue = connection.broker.queue(named: path.entity) else {
            return reply(.failure(404, .entityNotFound(path.entity)), to: request)
        }
        let node = ManagementNode(connection: connection, queue: queue)
        node.answer(request) { [self] answer in
            guard !link.isDetached else { return }
            reply(answer, to: request)
        }
    }

    func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) { connection.forget(link) }
}
