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
    private var waiting: [String: Waiting] = [:]
    private var unsent: [AMQPMessage] = []
    private var failure: AMQPError?
    private var watch: LoopTimer?

    private struct Waiting {
        let since: UInt64
        let done: @EventLoop (Result<AMQPMessage, AMQPError>) -> Void
    }

    /// How long a node may take to answer, give or take ``watchInterval``.
    static let timeout = Duration.seconds(60)
    static let watchInterval = Duration.seconds(5)

    /// The links are gone; further requests need new ones.
    public var isOver: Bool { failure != nil }

    /// - Parameter node: `$cbs`, or an entity's `…/$management`.
    public init(session: AMQPSession, node: String) {
        replyTo = node == "$cbs" ? node : "\(node)-\(UInt32.random(in: .min ... .max))"
        receiver = session.attachReceiver(
            name: "\(replyTo):receiver", source: .source(node), target: .target(replyTo), handler: self)
        sender = session.attachSender(
            name: "\(replyTo):sender", target: .target(node), source: .source(replyTo), handler: self)
        receiver?.keepCredit(100)
        watch = LoopTimer { [weak self] in self?.giveUpLate() }
    }

    /// Sends a request; its message id is ours. Answers once, with the answer or why there is none.
    public func call(_ request: AMQPMessage) -> Eventual<Result<AMQPMessage, AMQPError>> {
        .later { [self] done in
            if let failure { return done(.failure(failure)) }
            next += 1
            var request = request
            request.properties.messageID = .string("\(next)")
            request.properties.replyTo = replyTo
            if waiting.isEmpty { watch?.start(after: Self.watchInterval, every: Self.watchInterval) }
            waiting["\(next)"] = Waiting(since: monotonicNanoseconds(), done: done)
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
        watch?.stop()
        let waiting = waiting
        self.waiting = [:]
        unsent = []
        for entry in waiting.values { entry.done(.failure(error)) }
    }

    /// A node that leaves one request unanswered is given up; its links are made anew.
    private func giveUpLate() {
        let now = monotonicNanoseconds()
        guard waiting.values.contains(where: { now - $0.since >= Self.timeout.wholeNanoseconds }) else {
            if waiting.isEmpty { watch?.stop() }
            return
        }
        sender?.detach()
        receiver?.detach()
        fail(AMQPError("com.microsoft:timeout", "'\(replyTo)' was not answered in time"))
    }
}

extension BusRequests: @EventLoop AMQPLinkHandler {
    public func linkHasCredit(_ link: AMQPLink) { send() }

    public func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {
        if !delivery.isSettled {
            link.session.settle(first: delivery.id, last: delivery.id, .accepted, asSender: false)
        }
        guard let answer = try? AMQPMessage(payload), let id = answer.properties.correlationID.text,
            let entry = waiting.removeValue(forKey: id)
        else { return }
        entry.done(.success(answer))
    }

    public func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) {
        // One without the other is of no use.
        (link === sender ? receiver : sender)?.detach()
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
        let usual = [401: "amqp:unauthorized-access", 404: "amqp:not-found"][status]
        return AMQPError(
            properties["errorCondition"]?.text ?? usual ?? "amqp:internal-error",
            (properties["statusDescription"] ?? properties["status-description"])?.text ?? "status \(status)")
    }
}
