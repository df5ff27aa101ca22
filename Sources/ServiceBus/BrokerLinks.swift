/// The two ends of queues: links that send into them and links that take from them.
internal import AMQP
internal import EventLoops

/// A link's answers, gathered while a commit's effects run: those that accept deliveries in a row are one range.
@EventLoop
final class SettlementRange {
    private unowned let connection: BrokerConnection
    private let link: AMQPLink
    private var range: (first: UInt32, last: UInt32)?

    init(connection: BrokerConnection, link: AMQPLink) {
        self.connection = connection
        self.link = link
    }

    /// Answers for one delivery, after those before it.
    func answer(_ delivery: UInt32, _ state: DeliveryState) {
        guard !link.isDetached else { return }
        guard state == .accepted else {
            flush()
            return link.session.settle(first: delivery, last: delivery, state, asSender: !link.isReceiver)
        }
        if let current = range, delivery == current.last &+ 1 {
            range = (current.first, delivery)
        } else {
            if range == nil { connection.willFlush(self) } else { flush() }
            range = (delivery, delivery)
        }
    }

    /// Sends what was gathered.
    func flush() {
        guard let current = range else { return }
        range = nil
        link.session.settle(first: current.first, last: current.last, .accepted, asSender: !link.isReceiver)
    }
}

/// A client's sending link.
@EventLoop
final class ProducerLink {
    /// Messages a client may send before we answer any.
    static let credit: UInt32 = 1000

    unowned let connection: BrokerConnection
    private unowned let broker: Broker
    let link: AMQPLink
    let queue: MessageQueue
    private let answers: SettlementRange

    init(connection: BrokerConnection, link: AMQPLink, queue: MessageQueue) {
        self.connection = connection
        broker = connection.broker
        self.link = link
        self.queue = queue
        answers = SettlementRange(connection: connection, link: link)
    }

    /// A delivery's messages are on disk, or are not.
    func finish(_ delivery: UInt32, _ state: DeliveryState) { answers.answer(delivery, state) }

    func drop(_ error: AMQPError) {
        connection.forget(link)
        link.detach(error)
    }
}

extension ProducerLink: @EventLoop AMQPLinkHandler {
    func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {
        let error =
            delivery.isTooLarge
            ? AMQPError.tooLarge(payload.count) : broker.send(payload, format: delivery.messageFormat, to: queue)
        if delivery.isSettled { return }
        if let error {
            // In order with what was accepted before it.
            broker.effects.append(
                .call { [self] _ in finish(delivery.id, .rejected(error)) })
            broker.pump(queue)
        } else {
            broker.then(.accepted(self, delivery.id...delivery.id))
            broker.pump(queue)
        }
    }

    func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) { connection.forget(link) }
}

/// A client's receiving link.
@EventLoop
final class ConsumerLink: MessageReceiver {
    unowned let connection: BrokerConnection
    private unowned let broker: Broker
    let link: AMQPLink
    let queue: MessageQueue
    let isPeekLock: Bool
    private(set) var session: MessageSession?
    /// Messages on their way here that are not sent yet.
    private var reserved: UInt32 = 0
    private let answers: SettlementRange

    /// How long a client waits for any session when it names no time.
    private static let sessionWait: Int64 = 65_000

    init(connection: BrokerConnection, link: AMQPLink, queue: MessageQueue) {
        self.connection = connection
        broker = connection.broker
        self.link = link
        self.queue = queue
        isPeekLock = link.remote.senderSettleMode != 1
        answers = SettlementRange(connection: connection, link: link)
    }

    /// Why the link cannot be; the words are the emulator's.
    func refusal(wantsSession: Bool) -> AMQPError? {
        if queue.settings.isTopic {
            return AMQPError("amqp:not-allowed", "'\(queue.name)' is a topic; receive from one of its subscriptions")
        }
        if queue.requiresSession, !wantsSession {
            return AMQPError(
                "amqp:not-allowed",
                "It is not possible for an entity that requires sessions to create a non-sessionful message receiver.")
        }
        if !queue.requiresSession, wantsSession {
            return AMQPError(
                "amqp:not-allowed",
                "A sessionful message receiver cannot be created on an entity that does not require sessions.")
        }
        if queue.settings.status.refusesReceives {
            return AMQPError("com.microsoft:entity-disabled", "'\(queue.name)' gives no messages out")
        }
        return nil
    }

    /// Holds the attach unanswered until there is a session, or it takes too long.
    func acceptSession(_ id: String?, size: UInt64) {
        let wait = link.remote.properties["com.microsoft:timeout"]?.integer ?? Self.sessionWait
        queue.accept(
            id, for: self, wait: wait,
            granted: { [self] session in
                self.session = session
                // .NET counts time in ticks of 100 ns from the year 1.
                let ticks = session.lockedUntil * 10_000 + 621_355_968_000_000_000
                link.accept(maxMessageSize: size) { answer in
                    answer.source?.filter = .map([
                        AMQPPair(symbol: "com.microsoft:session-filter", .string(session.id))
                    ])
                    answer.properties = .map([AMQPPair(symbol: "com.microsoft:locked-until-utc", .long(ticks))])
                }
                queue.add(self)
            },
            refused: { [self] error in
                connection.forget(link)
                link.refuse(error)
            })
    }

    // MARK: Taking

    var canTake: Bool { link.credit > reserved && link.canSend }

    func reserve() { reserved += 1 }
    func cancelReservation() { reserved -= 1 }

    func take(_ record: MessageRecord, _ delivery: MessageRecord.Delivery) {
        if !isPeekLock { reserved -= 1 }
        guard !link.isDetached else { return }
        let token = delivery.lockToken ?? AMQPUUID(high: record.sequence, low: 0)
        link.send(tag: AMQPTag(token: token), settled: !isPeekLock, token: token) { writer in
            record.write(delivery, to: &writer)
        }
        if link.isDraining { broker.pump(queue) }
    }

    /// What a client told about a delivery is on disk, or could not be done.
    func confirm(_ delivery: UInt32, _ state: DeliveryState) { answers.answer(delivery, state) }

    // MARK: Ending

    func sessionLockWasLost() {
        session = nil
        drop(.sessionLockLost)
    }

    func drop(_ error: AMQPError) {
        leave()
        connection.forget(link)
        link.detach(error)
    }

    /// Peek-locked messages stay locked, as in Azure; a session is given back.
    private func leave() {
        queue.remove(self)
        queue.stopWaiting(self)
        guard let session else { return }
        self.session = nil
        queue.release(session, countsAsFailure: false)
    }

    private func disposition(_ state: DeliveryState?) -> (Disposition, DeliveryState)? {
        switch state {
        case .accepted: return (.complete, .accepted)
        case .released: return (.release, .released)
        case .modified(let failed, let undeliverable, let annotations):
            let answer = DeliveryState.modified(failed: failed, undeliverableHere: undeliverable, annotations: [])
            if undeliverable { return (.defer(annotations), answer) }
            return (failed ? .abandon(annotations) : .release, answer)
        case .rejected(let error):
            let reason = error?.info.first { $0.key.text == "DeadLetterReason" }?.value.text
            let text = error?.info.first { $0.key.text == "DeadLetterErrorDescription" }?.value.text
            // The answer carries no error: with one, clients take the settlement for failed.
            let others = error?.info.filter {
                $0.key.text != "DeadLetterReason" && $0.key.text != "DeadLetterErrorDescription"
            }
            let pairs = (others ?? []).compactMap { pair in pair.key.text.map { AMQPPair(string: $0, pair.value) } }
            let isPlain = error == nil || error?.condition == "com.microsoft:dead-letter"
            return (
                .deadLetter(
                    reason: reason ?? (isPlain ? nil : error?.condition),
                    description: text ?? (isPlain ? nil : error?.text), pairs), .rejected(nil)
            )
        case nil: return (.release, .released)
        case .received, .other: return nil
        }
    }
}

extension ConsumerLink: @EventLoop AMQPLinkHandler {
    func linkHasCredit(_ link: AMQPLink) {
        queue.schedulePump()
        guard link.isDraining else { return }
        queue.pump()
        if reserved == 0, !link.isDetached { link.finishDrain() }
    }

    func link(_ link: AMQPLink, deliveryDidSettle settlement: AMQPSettlement) {
        guard isPeekLock, let (disposition, answer) = disposition(settlement.state) else { return }
        let id = settlement.deliveryID
        let effect: CommitEffect? =
            if settlement.isSettled { nil } else if case .complete = disposition { .completed(self, id...id) } else {
                .settled(self, id, answer)
            }
        if let error = queue.settle(settlement.token, disposition, then: effect) {
            if !settlement.isSettled { confirm(settlement.deliveryID, .rejected(error)) }
        } else {
            broker.pump(queue)
        }
    }

    func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) {
        leave()
        connection.forget(link)
    }
}
