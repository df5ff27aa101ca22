/// Requests to a node of a broker, and their answers: `$cbs`, `$management`.
public import AMQP
public import EventLoops

/// Sends requests on one pair of links.
@EventLoop
public final class BusRequests {
    private var sender: AMQPLink?
    private var receiver: AMQPLink?
    private let replyTo: String
    private var next: UInt64 = 0
    private var waiting: [String: @EventLoop (Result<AMQPMessage, AMQPError>) -> Void] = [:]
    private var unsent: [AMQPMessage] = []
    private var failure: AMQPError?

    /// - Parameter node: `$cbs`, or an entity's `…/$management`.
    public init(session: AMQPSession, node: String) {
        replyTo = node == "$cbs" ? node : "\(node)-\(UInt32.random(in: .min ... .max))"
        receiver = session.attachReceiver(
            name: "\(replyTo):receiver", source: .source(node), target: .target(replyTo), handler: self)
        sender = session.attachSender(
            name: "\(replyTo):sender", target: .target(node), source: .source(replyTo), handler: self)
        receiver?.keepCredit(100)
    }

    /// Sends a request; its message id is ours. Answers once, with the answer or why there is none.
    public func call(_ request: AMQPMessage) -> Eventual<Result<AMQPMessage, AMQPError>> {
        .later { [self] done in
            if let failure { return done(.failure(failure)) }
            next += 1
            var request = request
            request.properties.messageID = .string("\(next)")
            request.properties.replyTo = replyTo
            waiting["\(next)"] = done
            unsent.append(request)
            send()
        }
    }

    private func send() {
        guard let sender else { return }
        while !unsent.isEmpty, sender.canSend {
            let request = unsent.removeFirst()
            sender.send(tag: AMQPTag(counter: UInt32(truncatingIfNeeded: next)), settled: true) {
                request.write(to: &$0)
            }
        }
    }

    /// Detaches; what waits is answered with a failure.
    public func close() {
        sender?.detach()
        receiver?.detach()
        fail(AMQPError("amqp:link:detach-forced", "closed"))
    }

    private func fail(_ error: AMQPError) {
        failure = error
        let waiting = waiting
        self.waiting = [:]
        unsent = []
        for done in waiting.values { done(.failure(error)) }
    }
}

extension BusRequests: @EventLoop AMQPLinkHandler {
    public func linkHasCredit(_ link: AMQPLink) { send() }

    public func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {
        if !delivery.isSettled {
            link.session.settle(first: delivery.id, last: delivery.id, .accepted, asSender: false)
        }
        guard let answer = try? AMQPMessage(payload), let id = answer.properties.correlationID.text,
            let done = waiting.removeValue(forKey: id)
        else { return }
        done(.success(answer))
    }

    public func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) {
        fail(error ?? AMQPError("amqp:link:detach-forced", "the broker detached '\(link.name)'"))
    }
}

extension AMQPMessage {
    /// A request to a management node.
    public init(operation: String, _ body: [AMQPPair]) {
        self.init(body: .value(.map(body)))
        applicationProperties = [
            AMQPPair(string: "operation", .string("com.microsoft:\(operation)")),
            AMQPPair(string: "type", .string("entity-mgmt")),
        ]
    }

    /// The status of an answer; `$cbs` and `$management` spell it differently.
    public var status: Int64 {
        let properties = AMQPValue.map(applicationProperties)
        return (properties["statusCode"] ?? properties["status-code"])?.integer ?? 500
    }

    /// An answer's error, in the words of the broker; nil for one that is none.
    public var failure: AMQPError? {
        guard !(200..<300).contains(status) else { return nil }
        let properties = AMQPValue.map(applicationProperties)
        return AMQPError(
            properties["errorCondition"]?.text ?? "amqp:internal-error",
            (properties["statusDescription"] ?? properties["status-description"])?.text ?? "status \(status)")
    }
}

/// Puts tokens to `$cbs` and renews them in time.
@EventLoop
final class TokenKeeper {
    private let address: BrokerAddress
    private let requests: BusRequests
    private let lifetime: Duration
    private var entities: Set<String> = []
    private var timer: LoopTimer?

    init(address: BrokerAddress, session: AMQPSession, lifetime: Duration) {
        self.address = address
        self.lifetime = lifetime
        requests = BusRequests(session: session, node: "$cbs")
        timer = LoopTimer { [weak self] in self?.renew() }
        timer?.start(after: lifetime * 3 / 4, every: lifetime * 3 / 4)
    }

    /// Puts a token for an entity, and keeps it alive.
    func need(_ entity: String, _ done: @escaping @EventLoop (AMQPError?) -> Void) {
        entities.insert(entity)
        put(entity).whenDone { result in
            switch result {
            case .failure(let error): done(error)
            case .success(let answer): done(answer.failure)
            }
        }
    }

    private func put(_ entity: String) -> Eventual<Result<AMQPMessage, AMQPError>> {
        let audience = "sb://\(address.host)/\(entity)"
        let expiry = wallMilliseconds() / 1000 + Int64(lifetime.inSeconds)
        let token =
            address.signature
            ?? SharedAccessSignature.make(
                audience: audience, keyName: address.user, key: address.password, expiry: expiry)
        var request = AMQPMessage(body: .value(.string(token)))
        request.applicationProperties = [
            AMQPPair(string: "operation", .string("put-token")),
            AMQPPair(string: "type", .string("servicebus.windows.net:sastoken")),
            AMQPPair(string: "name", .string(audience)), AMQPPair(string: "expiration", .timestamp(expiry * 1000)),
        ]
        return requests.call(request)
    }

    private func renew() {
        for entity in entities { put(entity).whenDone { _ in } }
    }
}
