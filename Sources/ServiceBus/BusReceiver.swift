/// Receives from one entity of a broker, and tells it what became of each message.
public import AMQP
public import EventLoops

/// A message under way.
@EventLoop
public final class BusMessage {
    public let message: AMQPMessage
    public let deliveryID: UInt32
    public let lockToken: AMQPUUID?
    /// The encoded message, for counting attempts where the broker does not.
    let bytes: [UInt8]
    weak var link: AMQPLink?
    /// True once its fate was told, or its lock was lost.
    public internal(set) var isSettled = false
    /// Milliseconds since 1970 at which the lock ends; nil for brokers without locks.
    public internal(set) var lockedUntil: Int64?
    /// Milliseconds the lock held when the message came; 0 for brokers without locks.
    public let lockSpan: Int64

    init(_ message: AMQPMessage, _ delivery: AMQPDelivery, bytes: [UInt8], link: AMQPLink, isServiceBus: Bool) {
        self.message = message
        self.bytes = bytes
        self.link = link
        deliveryID = delivery.id
        lockToken = isServiceBus ? AMQPUUID(guidBytes: delivery.tag.bytes) : nil
        let end = message.messageAnnotations.first { $0.key.text == "x-opt-locked-until" }?.value.integer
        lockedUntil = end
        lockSpan = end.map { max(0, $0 - wallMilliseconds()) } ?? 0
    }

    /// A message annotation by name.
    public func annotation(_ name: String) -> AMQPValue? {
        message.messageAnnotations.first { $0.key.text == name }?.value
    }
}

/// What becomes of a message.
public enum BusOutcome: Sendable {
    case complete
    /// Tried again; counts as an attempt.
    case abandon
    /// Tried again, as if never delivered.
    case release
    case deadLetter(reason: String, description: String)

    /// As `update-disposition` calls it, which has no word for a release.
    fileprivate var dispositionStatus: String {
        switch self {
        case .complete: "completed"
        case .abandon, .release: "abandoned"
        case .deadLetter: "suspended"
        }
    }
}

/// Takes messages from a receiver.
@EventLoop
public protocol BusReceiverOwner: AnyObject {
    func receiver(_ receiver: BusReceiver, didReceive message: BusMessage)
    /// It is attached; `session` is the session it was given.
    func receiverDidAttach(_ receiver: BusReceiver, session: String?)
    /// It is not attached any more; unsettled messages are the broker's again. It attaches again by itself.
    func receiverDidDetach(_ receiver: BusReceiver, _ error: AMQPError)
}

/// One receiving link, attached again whenever it is lost.
@EventLoop
public final class BusReceiver: BusUser {
    public let entity: String
    public private(set) weak var owner: (any BusReceiverOwner)?
    private let client: BusClient
    private let wantsSession: Bool
    private var link: AMQPLink?
    private var requests: BusRequests?
    private var session: AMQPSession?
    /// The session it holds.
    public private(set) var sessionID: String?
    /// Milliseconds since 1970 until which the session is ours.
    public private(set) var sessionLockedUntil: Int64 = 0
    /// Milliseconds the session's lock held when it was given.
    public private(set) var sessionLockSpan: Int64 = 0
    private var confirming: [UInt32: Settling] = [:]
    /// Told when there is a connection again.
    private var unsettled: [Settling] = []
    private var drained: Gate?
    private var hasModified = true
    private var isRunning = false
    private var retry: LoopTimer?
    private var capacity: UInt32 = 0

    private struct Settling {
        let message: BusMessage
        let outcome: BusOutcome
        let done: @EventLoop (Bool) -> Void
    }

    /// The pause before a link that was refused is attached again.
    static let retryInterval = Duration.seconds(1)
    static let drainTimeout = Duration.seconds(2)
    /// How long a broker may let us wait for any session before it says that there is none.
    static let sessionWait: UInt32 = 55_000

    public init(client: BusClient, entity: String, wantsSession: Bool = false, owner: any BusReceiverOwner) {
        self.client = client
        self.entity = entity
        self.wantsSession = wantsSession
        self.owner = owner
        retry = LoopTimer { [weak self] in
            guard let self else { return }
            client.reopen(self)
        }
    }

    public func start() {
        isRunning = true
        client.add(self)
    }

    /// Gives back what was not settled: the link goes, and takes nothing with it.
    public func stop() {
        isRunning = false
        retry?.stop()
        link?.detach()
        requests?.close()
        let waiting = Array(confirming.values) + unsettled
        confirming = [:]
        unsettled = []
        detached()
        for settling in waiting { settling.done(false) }
        client.remove(self)
    }

    /// Has the broker send nothing more, and returns when what was under way has come; or after ``drainTimeout``.
    public func drain() async {
        capacity = 0
        guard isAttached, let link, credit > 0 else { return }
        let gate = Gate()
        drained = gate
        let patience = LoopTimer { gate.open() }
        patience.start(after: Self.drainTimeout)
        link.drain()
        await gate.wait()
        patience.stop()
    }

    /// Lets the broker send up to `count` messages beyond those that have come.
    public func grant(_ count: UInt32) {
        capacity = count
        link?.grant(count)
    }

    /// Messages that may still come.
    public var credit: UInt32 { link?.credit ?? 0 }
    public var isAttached: Bool { link != nil && hasAnswer }
    private var hasAnswer = false

    /// Ends the session and asks for another.
    public func nextSession() {
        link?.detach()
        detached()
        attach()
    }

    // MARK: The bus

    public func busDidOpen(_ session: AMQPSession) {
        self.session = session
        attach()
        let waiting = unsettled
        unsettled = []
        for settling in waiting { settleByToken(settling) }
    }

    public func busDidClose(_ error: AMQPError) {
        session = nil
        requests = nil
        detached()
        owner?.receiverDidDetach(self, error)
    }

    private func attach() {
        guard isRunning, let session, !session.isEnded, link == nil else { return }
        let address = client.isServiceBus ? entity : "/queue/\(entity)"
        var source = AMQPTerminus.source(
            address,
            filter: wantsSession
                ? [AMQPPair(symbol: "com.microsoft:session-filter", .null)] : [])
        // RabbitMQ declares a queue that is not there; durable, when it is asked to.
        if !client.isServiceBus { source.fields[1] = .uint(2) }
        var properties = AMQPValue.null
        if wantsSession {
            properties = .map([AMQPPair(symbol: "com.microsoft:timeout", .uint(Self.sessionWait))])
        }
        link = session.attachReceiver(
            name: "andiron-\(UInt64.random(in: .min ... .max))", source: source,
            settlesSecond: client.isServiceBus, properties: properties, handler: self)
    }

    private func detached() {
        link = nil
        hasAnswer = false
        sessionID = nil
        drained?.open()
        let waiting = confirming.values.sorted { $0.message.deliveryID < $1.message.deliveryID }
        confirming = [:]
        // Whether the broker has them on record is not known: they are told once more.
        for settling in waiting { settleByToken(settling) }
    }

    // MARK: Settling

    /// Tells the broker; answers whether it has it on record.
    public func settle(_ message: BusMessage, _ outcome: BusOutcome) -> Eventual<Bool> {
        guard !message.isSettled else { return .now(false) }
        message.isSettled = true
        guard let link, message.link === link else {
            guard client.isServiceBus, !wantsSession, isRunning else { return .now(false) }
            return .later { [self] done in
                settleByToken(Settling(message: message, outcome: outcome, done: done))
            }
        }
        let state: DeliveryState
        switch outcome {
        case .complete: state = .accepted
        case .release: state = .released
        case .abandon:
            state = hasModified ? .modified(failed: true, undeliverableHere: false, annotations: []) : .released
        case .deadLetter(let reason, let description):
            state = .rejected(
                AMQPError(
                    "com.microsoft:dead-letter", description,
                    info: [
                        AMQPPair(symbol: "DeadLetterReason", .string(reason)),
                        AMQPPair(symbol: "DeadLetterErrorDescription", .string(description)),
                    ]))
        }
        guard client.isServiceBus else {
            link.session.settle(first: message.deliveryID, last: message.deliveryID, state, asSender: false)
            return .now(true)
        }
        return .later { [self] done in
            confirming[message.deliveryID] = Settling(message: message, outcome: outcome, done: done)
            link.session.settleAwaitingConfirmation(link, message.deliveryID, state)
        }
    }

    /// Gives a message back as if never delivered, without waiting for the broker's word. One whose link is gone
    /// comes again when its lock ends.
    public func release(_ message: BusMessage) {
        guard !message.isSettled, let link, message.link === link else { return }
        message.isSettled = true
        link.session.settle(first: message.deliveryID, last: message.deliveryID, .released, asSender: false)
    }

    /// The link a message came by is gone: its lock token still settles it, until the lock ends.
    private func settleByToken(_ settling: Settling) {
        guard !wantsSession, let token = settling.message.lockToken, isHeld(settling) else {
            return settling.done(false)
        }
        guard let requests = management() else { return unsettled.append(settling) }
        var body = [
            AMQPPair(string: "disposition-status", .string(settling.outcome.dispositionStatus)),
            AMQPPair(string: "lock-tokens", .array([.uuid(token)])),
        ]
        if case .deadLetter(let reason, let description) = settling.outcome {
            body.append(AMQPPair(string: "deadletter-reason", .string(reason)))
            body.append(AMQPPair(string: "deadletter-description", .string(description)))
        }
        requests.call(AMQPMessage(operation: "update-disposition", body)).whenDone { [weak self] result in
            switch result {
            case .success(let answer): settling.done(answer.failure == nil)
            case .failure:
                guard let self, isRunning, isHeld(settling) else { return settling.done(false) }
                unsettled.append(settling)
            }
        }
    }

    private func isHeld(_ settling: Settling) -> Bool {
        settling.message.lockedUntil.map { $0 > wallMilliseconds() } ?? false
    }

    /// Tells again what could not be told, and gives up what has lost its lock meanwhile.
    public func tick() {
        guard !unsettled.isEmpty else { return }
        let waiting = unsettled
        unsettled = []
        for settling in waiting { settleByToken(settling) }
    }

    /// Holds the lock of a message longer; does nothing where there are no locks.
    public func renew(_ message: BusMessage) -> Eventual<Bool> {
        guard let token = message.lockToken, let requests = management() else { return .now(false) }
        let request = AMQPMessage(
            operation: "renew-lock", [AMQPPair(string: "lock-tokens", .array([.uuid(token)]))])
        return requests.call(request).map { result in
            guard case .success(let answer) = result, answer.failure == nil, case .value(let body) = answer.body,
                let end = body["expirations"]?.elements?.first?.integer
            else { return false }
            message.lockedUntil = end
            return true
        }
    }

    /// Holds the session longer.
    public func renewSession() -> Eventual<Bool> {
        guard let sessionID, let requests = management() else { return .now(false) }
        let request = AMQPMessage(
            operation: "renew-session-lock", [AMQPPair(string: "session-id", .string(sessionID))])
        return requests.call(request).map { [weak self] result in
            guard case .success(let answer) = result, answer.failure == nil, case .value(let body) = answer.body,
                let end = body["expiration"]?.integer
            else { return false }
            self?.sessionLockedUntil = end
            return true
        }
    }

    private func management() -> BusRequests? {
        guard client.isServiceBus, let session, !session.isEnded else { return nil }
        if let requests, !requests.isOver { return requests }
        let made = BusRequests(session: session, node: "\(entity)/$management")
        requests = made
        return made
    }
}

extension BusReceiver: @EventLoop AMQPLinkHandler {
    public func linkDidAttach(_ link: AMQPLink, _ remote: AMQPAttach) {
        // A refusal is an attach without a source, and then a detach with the reason.
        guard link === self.link, remote.source != nil else { return }
        hasAnswer = true
        client.isUsed()
        hasModified = remote.source?.outcomes.map { $0.contains("amqp:modified:list") } ?? true
        if wantsSession {
            sessionID = remote.source?.filter["com.microsoft:session-filter"]?.text
            let ticks = remote.properties["com.microsoft:locked-until-utc"]?.integer ?? 0
            sessionLockedUntil = (ticks - 621_355_968_000_000_000) / 10_000
            sessionLockSpan = max(0, sessionLockedUntil - wallMilliseconds())
        }
        owner?.receiverDidAttach(self, session: sessionID)
        if capacity > 0 { link.grant(capacity) }
    }

    public func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {
        guard link === self.link else { return }
        guard let decoded = try? AMQPMessage(payload) else {
            let error = AMQPError("amqp:decode-error", "the message cannot be read")
            return link.session.settle(
                first: delivery.id, last: delivery.id, .rejected(error), asSender: false)
        }
        let bytes = client.isServiceBus ? [] : Array(payload)
        let message = BusMessage(decoded, delivery, bytes: bytes, link: link, isServiceBus: client.isServiceBus)
        owner?.receiver(self, didReceive: message)
    }

    public func link(_ link: AMQPLink, settlementWasConfirmed deliveryID: UInt32, _ state: DeliveryState?) {
        guard let settling = confirming.removeValue(forKey: deliveryID) else { return }
        if case .rejected(let error?) = state, error.condition.hasSuffix("lock-lost") { return settling.done(false) }
        settling.done(true)
    }

    public func linkDidDrain(_ link: AMQPLink) { drained?.open() }

    public func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) {
        guard link === self.link else { return }
        let wasAttached = hasAnswer
        detached()
        let error = error ?? AMQPError("amqp:link:detach-forced", "the broker detached the link")
        owner?.receiverDidDetach(self, error)
        guard isRunning, session != nil else { return }
        // That there was no session for a while is no failure.
        if error.condition == "com.microsoft:timeout" { return attach() }
        let hasLostRights = wasAttached && error.condition == "amqp:unauthorized-access"
        retry?.start(after: hasLostRights ? .zero : Self.retryInterval)
    }
}
