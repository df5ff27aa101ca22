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
    private var isClosed = false
    /// The broker has ended the link for lack of a valid token.
    private var needsToken = false

    private final class Sending {
        let bytes: [UInt8]
        let format: UInt32
        var done: (@EventLoop (AMQPError?) -> Void)?
        /// The end of a try, or of the pause before the next.
        var timer: LoopTimer?
        var isPausing = false
        var retries = 0

        init(bytes: [UInt8], format: UInt32, done: @escaping @EventLoop (AMQPError?) -> Void) {
            self.bytes = bytes
            self.format = format
            self.done = done
        }
    }

    /// What a message that was not taken gets.
    private let retry: BusRetryPolicy

    public init(client: BusClient, entity: String, retry: BusRetryPolicy = BusRetryPolicy()) {
        self.client = client
        self.entity = entity
        self.retry = retry
    }

    /// Whether the broker at the other end is a Service Bus, which can schedule.
    public var isServiceBus: Bool { client.isServiceBus }

    /// Sends one encoded message; nil when the broker has it, or why it has not after all tries. A message whose
    /// answer was lost is sent again, and may then be there twice.
    public func send(_ bytes: [UInt8], format: UInt32 = 0) -> Eventual<AMQPError?> {
        .later { [self] done in
            let sending = Sending(bytes: bytes, format: format, done: done)
            // The timer keeps the message while nothing else does; it goes when the message is finished.
            sending.timer = LoopTimer { [weak self] in
                guard let self else { return }
                if sending.isPausing { begin(sending) } else { late(sending) }
            }
            begin(sending)
        }
    }

    private func begin(_ sending: Sending) {
        sending.isPausing = false
        sending.timer?.start(after: retry.tryTimeout)
        waiting.append(sending)
        if !isAdded {
            isAdded = true
            client.add(self)
        }
        if session == nil { client.hurry() }
        attach()
        pump()
    }

    private func late(_ sending: Sending) {
        waiting.removeAll { $0 === sending }
        if let key = underWay.first(where: { $0.value === sending })?.key { underWay[key] = nil }
        failed(
            sending, client.failure ?? AMQPError("com.microsoft:timeout", "the broker did not answer in time"))
    }

    /// A try has failed: another one follows after a pause, or it was the last.
    private func failed(_ sending: Sending, _ error: AMQPError) {
        guard sending.done != nil else { return }
        guard BusRetryPolicy.isTransient(error), sending.retries < retry.maxRetries, !isClosed else {
            return finish(sending, error)
        }
        sending.retries += 1
        sending.isPausing = true
        sending.timer?.start(after: retry.delay(beforeRetry: sending.retries))
    }

    private func finish(_ sending: Sending, _ error: AMQPError?) {
        sending.timer?.stop()
        sending.timer = nil
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
        if needsToken || session.isEnded {
            needsToken = false
            return client.reopen(self)
        }
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

    /// The link is no more; what was under way may have arrived or not.
    private func ended(_ error: AMQPError) {
        link = nil
        isAttached = false
        let lost = underWay.sorted { $0.key < $1.key }.map(\.value) + waiting
        underWay = [:]
        waiting = []
        for sending in lost { failed(sending, error) }
    }

    /// Detaches.
    public func close() {
        isClosed = true
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
        client.isUsed()
        pump()
    }

    public func linkHasCredit(_ link: AMQPLink) { pump() }

    public func link(_ link: AMQPLink, deliveryDidSettle settlement: AMQPSettlement) {
        guard let sending = underWay.removeValue(forKey: settlement.token.low) else { return }
        switch settlement.state {
        case .accepted, nil: finish(sending, nil)
        case .rejected(let error):
            failed(sending, error ?? AMQPError("amqp:not-allowed", "the broker rejected the message"))
        default: failed(sending, AMQPError("amqp:internal-error", "the broker did not accept the message"))
        }
    }

    public func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) {
        guard link === self.link else { return }
        var error = error ?? AMQPError("amqp:link:detach-forced", "the broker detached the link")
        if error.condition == "amqp:unauthorized-access", isAttached {
            needsToken = true
            error.condition = "amqp:link:detach-forced"
        }
        ended(error)
    }
}

/// How often and for how long a message is tried; names and defaults are those of `ServiceBusRetryOptions`.
public struct BusRetryPolicy: Sendable, Equatable {
    /// How long one try may take.
    public var tryTimeout = Duration.seconds(60)
    /// The pause before the first retry.
    public var delay = Duration.milliseconds(800)
    /// The longest pause.
    public var maxDelay = Duration.seconds(60)
    /// Tries after the first.
    public var maxRetries = 3
    /// Whether each pause is twice the one before, or all are alike.
    public var isExponential = true

    public init() {}

    func delay(beforeRetry retry: Int) -> Duration {
        isExponential ? min(delay * (1 << min(retry - 1, 20)), maxDelay) : min(delay, maxDelay)
    }

    /// Whether the same message may be taken another time; what a broker refuses for what it is, it refuses again.
    static func isTransient(_ error: AMQPError) -> Bool {
        transient.contains(error.condition)
    }

    private static let transient: Set<String> = [
        "amqp:connection:forced", "amqp:connection:framing-error", "amqp:link:detach-forced", "amqp:internal-error",
        "com.microsoft:server-busy", "com.microsoft:timeout", "com.microsoft:operation-cancelled",
    ]
}
