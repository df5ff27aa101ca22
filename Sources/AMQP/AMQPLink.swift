/// A link: one direction of messages between two addresses, with credit.

/// What a link tells its owner.
public protocol AMQPLinkHandler: AnyObject {
    /// Client: the peer's attach has come, with what it granted.
    func linkDidAttach(_ link: AMQPLink, _ remote: AMQPAttach)
    /// A whole message has come. `payload` is borrowed for the length of the call.
    func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer)
    /// Messages may be sent: credit or window has grown, or the peer asks to drain.
    func linkHasCredit(_ link: AMQPLink)
    /// After ``AMQPLink/drain()``: everything that was under way has come, and nothing more will.
    func linkDidDrain(_ link: AMQPLink)
    /// The peer told the outcome of a delivery of ours.
    func link(_ link: AMQPLink, deliveryDidSettle settlement: AMQPSettlement)
    /// The peer confirmed what we told about a delivery of its.
    func link(_ link: AMQPLink, settlementWasConfirmed deliveryID: UInt32, _ state: DeliveryState?)
    /// Gone: detached by the peer, or with its session or connection.
    func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?)
}

extension AMQPLinkHandler {
    public func linkDidAttach(_ link: AMQPLink, _ remote: AMQPAttach) {}
    public func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {}
    public func linkHasCredit(_ link: AMQPLink) {}
    public func linkDidDrain(_ link: AMQPLink) {}
    public func link(_ link: AMQPLink, deliveryDidSettle settlement: AMQPSettlement) {}
    public func link(_ link: AMQPLink, settlementWasConfirmed deliveryID: UInt32, _ state: DeliveryState?) {}
}

/// A message that came, without its bytes.
public struct AMQPDelivery: Sendable {
    public let id: UInt32
    public let tag: AMQPTag
    /// 0 for AMQP's own; Service Bus's batches have another.
    public let messageFormat: UInt32
    /// True when the sender wants no answer.
    public let isSettled: Bool
    /// Larger than the limit; its bytes were dropped.
    public let isTooLarge: Bool
}

/// What a receiver says about a delivery of ours.
public struct AMQPSettlement: Sendable {
    public let deliveryID: UInt32
    /// What ``AMQPLink/send(tag:format:settled:token:payload:)`` was given.
    public let token: AMQPUUID
    public let state: DeliveryState?
    /// False when the peer awaits our confirmation.
    public let isSettled: Bool
}

/// One end of a link.
public final class AMQPLink {
    public let session: AMQPSession
    public let name: String
    /// True when messages come to us.
    public let isReceiver: Bool
    let localHandle: UInt32
    private(set) var remoteHandle: UInt32?
    /// True when we attached first.
    let isOurs: Bool
    /// What the peer said when it attached; for our own links, what we said until it answers.
    public private(set) var remote: AMQPAttach
    public var handler: (any AMQPLinkHandler)?
    /// Sender: messages we may send. Receiver: messages the peer may send.
    public private(set) var credit: UInt32 = 0
    private(set) var deliveryCount: UInt32 = 0
    /// Sender: the peer wants what there is, and then its credit back. Receiver: we do.
    public private(set) var isDraining = false
    public private(set) var isDetached = false
    private var hasAnswered = false
    /// Receiver: credit is topped up to this when half is used; 0 leaves it to ``grant(_:)``.
    private var standingCredit: UInt32 = 0
    private var partial: (first: AMQPTransfer, bytes: [UInt8], isTooLarge: Bool)?

    init(session: AMQPSession, localHandle: UInt32, remote: AMQPAttach) {
        self.session = session
        self.localHandle = localHandle
        self.remote = remote
        name = remote.name
        remoteHandle = remote.handle
        isReceiver = !remote.isReceiver
        isOurs = false
        deliveryCount = remote.initialDeliveryCount ?? 0
    }

    init(session: AMQPSession, local: AMQPAttach) {
        self.session = session
        localHandle = local.handle
        remote = local
        name = local.name
        isReceiver = local.isReceiver
        isOurs = true
        hasAnswered = true
    }

    private var connection: AMQPConnection? { session.connection }

    // MARK: Attaching

    /// Server: answers the peer's attach. `answer` starts as the peer's own words and may be changed.
    public func accept(maxMessageSize: UInt64, _ change: (inout AMQPAttach) -> Void = { _ in }) {
        guard !hasAnswered, !isDetached else { return }
        hasAnswered = true
        var answer = remote
        answer.handle = localHandle
        answer.isReceiver = isReceiver
        answer.initialDeliveryCount = isReceiver ? nil : 0
        answer.maxMessageSize = maxMessageSize
        answer.offeredCapabilities = .null
        answer.properties = .null
        change(&answer)
        if !isReceiver { deliveryCount = 0 }
        connection?.send(.attach(answer), channel: session.localChannel)
    }

    /// Server: refuses. The termini are left out, or a client believes for a moment that it is attached.
    public func refuse(_ error: AMQPError) {
        guard !hasAnswered, !isDetached else { return }
        hasAnswered = true
        var answer = AMQPAttach(name: name, handle: localHandle, isReceiver: isReceiver)
        answer.senderSettleMode = remote.senderSettleMode
        answer.receiverSettleMode = remote.receiverSettleMode
        answer.initialDeliveryCount = isReceiver ? nil : 0
        connection?.send(.attach(answer), channel: session.localChannel)
        detach(error)
    }

    func remoteAttached(_ attach: AMQPAttach) {
        remote = attach
        remoteHandle = attach.handle
        if isReceiver { deliveryCount = attach.initialDeliveryCount ?? 0 }
        handler?.linkDidAttach(self, attach)
    }

    // MARK: Credit

    /// Receiver: the peer may send `count` messages from now.
    public func grant(_ count: UInt32) {
        guard isReceiver, !isDetached else { return }
        isDraining = false
        credit = count
        session.sendFlow(self)
    }

    /// Receiver: takes no more than what is under way; the handler hears when that has come.
    public func drain() {
        guard isReceiver, !isDetached, remoteHandle != nil else { return }
        standingCredit = 0
        isDraining = true
        if credit > 0 { session.sendFlow(self, drain: true) } else { endDrain() }
    }

    private func endDrain() {
        guard isReceiver, isDraining, credit == 0, !isDetached else { return }
        isDraining = false
        handler?.linkDidDrain(self)
    }

    /// Receiver: keeps between half of `count` and `count` messages of credit.
    public func keepCredit(_ count: UInt32) {
        standingCredit = count
        grant(count)
    }

    func take(_ flow: AMQPFlow) {
        if isReceiver {
            // A drained sender advances its count and has used up its credit.
            if let count = flow.deliveryCount {
                let used = count &- deliveryCount
                deliveryCount = count
                credit = used > credit ? 0 : credit - used
            }
            if flow.echo { session.sendFlow(self, drain: isDraining) }
            return endDrain()
        }
        if let granted = flow.linkCredit {
            let limit = (flow.deliveryCount ?? 0) &+ granted
            let left = limit &- deliveryCount
            // What the peer had not seen when it wrote this counts against the credit.
            credit = left > granted ? 0 : left
        }
        isDraining = flow.drain
        if flow.echo { session.sendFlow(self) }
        if credit > 0 { handler?.linkHasCredit(self) }
    }

    /// Sender: gives back what credit is left, when the peer drains.
    public func finishDrain() {
        guard isDraining, credit > 0 else { return }
        deliveryCount &+= credit
        credit = 0
        session.sendFlow(self, drain: true)
    }

    // MARK: Messages

    /// Sender: whether a message may go now.
    @inline(__always)
    public var canSend: Bool { credit > 0 && !isDetached && session.canSend }

    /// Sends one message; `token` comes back with its settlement. Check ``canSend`` first.
    @discardableResult
    public func send(
        tag: AMQPTag, format: UInt32 = 0, settled: Bool = false, token: AMQPUUID = AMQPUUID(high: 0, low: 0),
        payload: (inout AMQPWriter) -> Void
    ) -> UInt32 {
        credit = credit > 0 ? credit - 1 : 0
        deliveryCount &+= 1
        return session.send(self, tag: tag, format: format, settled: settled, token: token, payload: payload)
    }

    func take(_ transfer: AMQPTransfer, _ payload: UnsafeRawBufferPointer) throws(AMQPError) {
        // Sent before the peer knew that we detached.
        if isDetached { return }
        guard isReceiver, hasAnswered else { throw AMQPError("amqp:not-allowed", "a transfer on a sending link") }
        if partial == nil, !transfer.more, !transfer.aborted {
            // The usual case: one frame, nothing copied.
            return try deliver(transfer, settled: transfer.settled ?? false, payload, isTooLarge: false)
        }
        if transfer.aborted {
            partial = nil
            return
        }
        if partial == nil { partial = (transfer, [], false) }
        append(payload)
        guard !transfer.more, let whole = partial else { return }
        partial = nil
        let settled = transfer.settled ?? whole.first.settled ?? false
        // `withUnsafeBytes` passes no typed errors.
        try whole.bytes.withUnsafeBytes { bytes -> Result<Void, AMQPError> in
            do throws(AMQPError) {
                return .success(try deliver(whole.first, settled: settled, bytes, isTooLarge: whole.isTooLarge))
            } catch {
                return .failure(error)
            }
        }.get()
    }

    private func append(_ payload: UnsafeRawBufferPointer) {
        let limit = connection?.limits.messageByteCount ?? 0
        guard let partial, !partial.isTooLarge else { return }
        if partial.bytes.count + payload.count > limit {
            self.partial?.bytes = []
            self.partial?.isTooLarge = true
        } else {
            self.partial?.bytes.append(contentsOf: payload)
        }
    }

    private func deliver(
        _ transfer: AMQPTransfer, settled: Bool, _ payload: UnsafeRawBufferPointer, isTooLarge: Bool
    ) throws(AMQPError) {
        guard let id = transfer.deliveryID, let tag = transfer.deliveryTag else {
            throw .malformed("the first transfer of a delivery has no delivery-id or delivery-tag")
        }
        deliveryCount &+= 1
        // Some clients send beyond their credit; that is their affair, and counts as none left.
        credit = credit > 0 ? credit - 1 : 0
        handler?.link(
            self,
            didReceive: AMQPDelivery(
                id: id, tag: tag, messageFormat: transfer.messageFormat ?? 0, isSettled: settled,
                isTooLarge: isTooLarge || payload.count > connection?.limits.messageByteCount ?? 0), payload: payload)
        if standingCredit > 0, credit <= standingCredit / 2, !isDetached { grant(standingCredit) }
        if isDraining { endDrain() }
    }

    // MARK: Detaching

    /// Detaches from our side; the handler is not told.
    public func detach(_ error: AMQPError? = nil) {
        guard !isDetached else { return }
        isDetached = true
        handler = nil
        connection?.send(.detach(handle: localHandle, closed: true, error: error), channel: session.localChannel)
        // The handle is free for the peer when it has answered; until then its frames are still told apart.
        if remoteHandle == nil { session.forget(self) }
    }

    func remoteDetached(closed: Bool, _ error: AMQPError?) {
        if isDetached { return }
        isDetached = true
        connection?.send(.detach(handle: localHandle, closed: closed, error: nil), channel: session.localChannel)
        let told = handler
        handler = nil
        told?.linkDidDetach(self, error)
    }

    func sessionEnded(_ error: AMQPError?) {
        guard !isDetached else { return }
        isDetached = true
        let told = handler
        handler = nil
        told?.linkDidDetach(self, error)
    }
}
