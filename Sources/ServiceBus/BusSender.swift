/// Sends to one entity of a broker, in order, and tells when each message is safe there.
public import AMQP
public import EventLoops

/// One sending link, attached when there is something to send.
@EventLoop
public final class BusSender: BusUser {
    public let entity: String
    private let client: BusClient
    private var link: AMQPLink?
    private var isAttached = false
    private var waiting: [Sending] = []
    private var underWay: [UInt64: Sending] = [:]
    private var next: UInt64 = 0
    private var isAdded = false
    private var session: AMQPSession?

    private final class Sending {
        let bytes: [UInt8]
        let format: UInt32
        var done: (@EventLoop (AMQPError?) -> Void)?
        var limit: LoopTimer?

        init(bytes: [UInt8], format: UInt32, done: @escaping @EventLoop (AMQPError?) -> Void) {
            self.bytes = bytes
            self.format = format
            self.done = done
        }
    }

    /// How long a message may take to be accepted.
    public static let timeout = Duration.seconds(30)

    public init(client: BusClient, entity: String) {
        self.client = client
        self.entity = entity
    }

    /// Sends one encoded message; nil when the broker has it, or why it has not.
    public func send(_ bytes: [UInt8], format: UInt32 = 0) -> Eventual<AMQPError?> {
        .later { [self] done in
            let sending = Sending(bytes: bytes, format: format, done: done)
            sending.limit = LoopTimer { [weak self, weak sending] in
                guard let sending else { return }
                self?.give(up: sending)
            }
            sending.limit?.start(after: Self.timeout)
            waiting.append(sending)
            if !isAdded {
                isAdded = true
                client.add(self)
            }
            attach()
            pump()
        }
    }

    private func give(up sending: Sending) {
        waiting.removeAll { $0 === sending }
        finish(sending, client.failure ?? AMQPError("com.microsoft:timeout", "the broker did not answer in time"))
    }

    private func finish(_ sending: Sending, _ error: AMQPError?) {
        sending.limit?.stop()
        let done = sending.done
        sending.done = nil
        done?(error)
    }

    private func pump() {
        guard let link, isAttached else { return }
        while link.canSend, !waiting.isEmpty {
            let sending = waiting.removeFirst()
            guard sending.done != nil else { continue }
            next += 1
            underWay[next] = sending
            link.send(
                tag: AMQPTag(counter: UInt32(truncatingIfNeeded: next)), format: sending.format,
                token: AMQPUUID(high: 0, low: next)
            ) { $0.bytes.append(contentsOf: sending.bytes) }
        }
    }

    private func attach() {
        guard let session, link == nil else { return }
        let address = client.isServiceBus ? entity : "/queue/\(entity)"
        link = session.attachSender(
            name: "andiron-\(UInt64.random(in: .min ... .max))",
            target: .target(address, durable: !client.isServiceBus), handler: self)
    }

    public func busDidOpen(_ session: AMQPSession) {
        self.session = session
        attach()
    }

    public func busDidClose(_ error: AMQPError) {
        session = nil
        ended(error)
    }

    /// What was under way may have arrived or not: the caller decides about trying again.
    private func ended(_ error: AMQPError) {
        link = nil
        isAttached = false
        let lost = underWay
        underWay = [:]
        for sending in lost.sorted(by: { $0.key < $1.key }) { finish(sending.value, error) }
    }

    /// Detaches.
    public func close() {
        link?.detach()
        ended(AMQPError("amqp:link:detach-forced", "closed"))
        client.remove(self)
        isAdded = false
    }
}

extension BusSender: @EventLoop AMQPLinkHandler {
    public func linkDidAttach(_ link: AMQPLink, _ remote: AMQPAttach) {
        guard link === self.link, remote.target != nil else { return }
        isAttached = true
        pump()
    }

    public func linkHasCredit(_ link: AMQPLink) { pump() }

    public func link(_ link: AMQPLink, deliveryDidSettle settlement: AMQPSettlement) {
        guard let sending = underWay.removeValue(forKey: settlement.token.low) else { return }
        switch settlement.state {
        case .accepted, nil: finish(sending, nil)
        case .rejected(let error):
            finish(sending, error ?? AMQPError("amqp:internal-error", "the broker rejected the message"))
        default: finish(sending, AMQPError("amqp:internal-error", "the broker did not accept the message"))
        }
    }

    public func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) {
        guard link === self.link else { return }
        let error = error ?? AMQPError("amqp:link:detach-forced", "the broker detached the link")
        ended(error)
        // A link that cannot be is no use to those that wait either.
        let waiting = waiting
        self.waiting = []
        for sending in waiting { finish(sending, error) }
    }
}
