/// Shared access tokens put to `$cbs` for the entities a connection uses.
internal import AMQP
internal import EventLoops

/// Puts tokens and renews them in time.
@EventLoop
final class TokenKeeper {
    private let address: BrokerAddress
    private let session: AMQPSession
    private var requests: BusRequests
    private let lifetime: Duration
    private var entities: Set<String> = []
    private var timer: LoopTimer?

    /// The pause before a renewal that failed is tried again; a tenth of the lifetime, if that is shorter.
    static let retryInterval = Duration.seconds(10)

    init(address: BrokerAddress, session: AMQPSession, lifetime: Duration) {
        self.address = address
        self.session = session
        self.lifetime = lifetime
        requests = BusRequests(session: session, node: "$cbs")
        timer = LoopTimer { [weak self] in self?.renew() }
        timer?.start(after: lifetime * 3 / 4)
    }

    /// Puts a token for an entity, and keeps it alive.
    func need(_ entity: String, _ done: @escaping @EventLoop (AMQPError?) -> Void) {
        entities.insert(entity)
        put(entity).whenDone(done)
    }

    /// Answers why a token was not taken.
    private func put(_ entity: String) -> Eventual<AMQPError?> {
        let audience = "sb://\(address.host)/\(entity)"
        let expiry = (wallMilliseconds() + Int64(lifetime.wholeMilliseconds) + 999) / 1000
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
        if requests.isOver { requests = BusRequests(session: session, node: "$cbs") }
        return requests.call(request).map { result in
            switch result {
            case .failure(let error): error
            case .success(let answer): answer.failure
            }
        }
    }

    private func renew() {
        timer?.start(after: lifetime * 3 / 4)
        for entity in entities {
            put(entity).whenDone { [weak self] error in
                guard let self, error != nil else { return }
                timer?.start(after: min(lifetime / 10, Self.retryInterval))
            }
        }
    }
}
