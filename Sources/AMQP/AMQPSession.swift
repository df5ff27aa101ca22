/// A session: windows, delivery numbers, and the links attached in it.

/// Orders deliveries and bounds the frames under way in both directions.
public final class AMQPSession {
    /// The connection; nil once the session is over. A weak reference would slow down every use of it.
    public private(set) var connection: AMQPConnection?
    let localChannel: UInt16
    var remoteChannel: UInt16?
    let localBegin: AMQPBegin
    private var incomingWindow: UInt32
    private var nextIncomingID: UInt32 = 0
    private var nextOutgoingID: UInt32 = 0
    private var remoteIncomingWindow: UInt32 = 0
    private var remoteHandleMax: UInt32 = .max
    private var nextDeliveryID: UInt32 = 0
    private var byRemoteHandle = NumberMap<AMQPLink>()
    private var byLocalHandle: [UInt32: AMQPLink] = [:]
    /// Deliveries of ours that the peer has not settled.
    private var sent = NumberMap<(link: AMQPLink, token: AMQPUUID)>()
    /// Deliveries to us, as a client, whose settlement we told and the peer has not confirmed.
    private var settling: [UInt32: AMQPLink] = [:]
    /// The rest of a message that did not fit the peer's window.
    private var stalled: [(transfer: AMQPTransfer, payload: ArraySlice<UInt8>)] = []
    /// Ended by either side, or gone with its connection: nothing can be attached any more.
    public private(set) var isEnded = false

    init(connection: AMQPConnection, localChannel: UInt16) {
        self.connection = connection
        self.localChannel = localChannel
        incomingWindow = connection.limits.incomingWindow
        localBegin = AMQPBegin(
            remoteChannel: nil, incomingWindow: incomingWindow, outgoingWindow: 65_536,
            handleMax: connection.limits.handleMax)
    }

    /// Every link attached now.
    public var links: [AMQPLink] { Array(byLocalHandle.values) }

    func begin(_ remote: AMQPBegin) {
        nextIncomingID = remote.nextOutgoingID
        remoteIncomingWindow = remote.incomingWindow
        remoteHandleMax = remote.handleMax
    }

    // MARK: Input

    @inline(__always)
    func take(_ performative: Performative, rest: UnsafeRawBufferPointer) throws(AMQPError) {
        switch performative {
        case .transfer(let transfer): try take(transfer, rest)
        case .disposition(let disposition): take(disposition)
        case .flow(let flow): try take(flow)
        case .attach(let attach): try take(attach)
        case .detach(let handle, let closed, let error):
            guard let link = byRemoteHandle.remove(UInt64(handle)) else {
                throw AMQPError("amqp:session:unattached-handle", "handle \(handle) is not attached")
            }
            forget(link)
            link.remoteDetached(closed: closed, error)
        case .end(let error):
            if !isEnded { connection?.send(.end(nil), channel: localChannel) }
            isEnded = true
            connection?.forget(self)
            connectionEnded(error)
        default: throw .illegal("a performative that is none of a session")
        }
    }

    private func take(_ transfer: AMQPTransfer, _ payload: UnsafeRawBufferPointer) throws(AMQPError) {
        nextIncomingID &+= 1
        incomingWindow &-= 1
        guard let link = byRemoteHandle[UInt64(transfer.handle)] else {
            throw AMQPError("amqp:session:unattached-handle", "handle \(transfer.handle) is not attached")
        }
        if incomingWindow < localBegin.incomingWindow / 2 {
            incomingWindow = localBegin.incomingWindow
            sendFlow(nil)
        }
        try link.take(transfer, payload)
    }

    private func take(_ disposition: AMQPDisposition) {
        guard disposition.isReceiver else { return confirmed(disposition) }
        // A range may claim four thousand million deliveries; only those that exist cost anything.
        let span = disposition.last &- disposition.first
        if Int(span) < 4 || Int(span) < sent.count {
            for step in 0...span { settled(disposition.first &+ step, disposition) }
        } else {
            let inRange = sent.map { UInt32($0.number) }.filter { $0 &- disposition.first <= span }
            for id in inRange.sorted(by: { $0 &- disposition.first < $1 &- disposition.first }) {
                settled(id, disposition)
            }
        }
    }

    private func settled(_ id: UInt32, _ disposition: AMQPDisposition) {
        guard let (link, token) = sent[UInt64(id)] else { return }
        if disposition.settled { sent.remove(UInt64(id)) }
        link.handler?.link(
            link,
            deliveryDidSettle: AMQPSettlement(
                deliveryID: id, token: token, state: disposition.state, isSettled: disposition.settled))
    }

    private func confirmed(_ disposition: AMQPDisposition) {
        guard disposition.settled, !settling.isEmpty else { return }
        let span = disposition.last &- disposition.first
        for id in settling.keys.filter({ $0 &- disposition.first <= span }) {
            guard let link = settling.removeValue(forKey: id) else { continue }
            link.handler?.link(link, settlementWasConfirmed: id, disposition.state)
        }
    }

    private func take(_ flow: AMQPFlow) throws(AMQPError) {
        // The peer's window counts from what it has seen; before it saw our begin, from our first number.
        let base = flow.nextIncomingID ?? 0
        let limit = base &+ flow.incomingWindow
        remoteIncomingWindow = limit &- nextOutgoingID
        if remoteIncomingWindow > flow.incomingWindow { remoteIncomingWindow = 0 }
        let wasStalled = !stalled.isEmpty
        flushStalled()
        if let handle = flow.handle {
            guard let link = byRemoteHandle[UInt64(handle)] else {
                throw AMQPError("amqp:session:unattached-handle", "handle \(handle) is not attached")
            }
            link.take(flow)
        } else if flow.echo {
            sendFlow(nil)
        }
        if wasStalled || flow.handle == nil, canSend {
            for link in byLocalHandle.values where link.credit > 0 && !link.isReceiver {
                link.handler?.linkHasCredit(link)
            }
        }
    }

    private func take(_ attach: AMQPAttach) throws(AMQPError) {
        guard let connection else { return }
        guard attach.handle <= connection.limits.handleMax else {
            throw AMQPError("amqp:session:handle-in-use", "handle \(attach.handle) is above handle-max")
        }
        guard byRemoteHandle[UInt64(attach.handle)] == nil else {
            throw AMQPError("amqp:session:handle-in-use", "handle \(attach.handle) is in use")
        }
        let answered = byLocalHandle.values.first {
            $0.name == attach.name && $0.isReceiver != attach.isReceiver && $0.remoteHandle == nil && $0.isOurs
        }
        if let answered {
            byRemoteHandle[UInt64(attach.handle)] = answered
            answered.remoteAttached(attach)
            return
        }
        let link = AMQPLink(session: self, localHandle: freeHandle(), remote: attach)
        byRemoteHandle[UInt64(attach.handle)] = link
        byLocalHandle[link.localHandle] = link
        connection.handler?.connectionDidAttach(link)
    }

    private func freeHandle() -> UInt32 {
        var handle: UInt32 = 0
        while byLocalHandle[handle] != nil { handle += 1 }
        return handle
    }

    // MARK: Links

    /// Client: attaches a link to send to `target`.
    public func attachSender(
        name: String, target: AMQPTerminus, source: AMQPTerminus? = nil, handler: any AMQPLinkHandler
    ) -> AMQPLink {
        attach(
            AMQPAttach(
                name: name, handle: freeHandle(), isReceiver: false, senderSettleMode: 0, receiverSettleMode: 0,
                source: source ?? .source(name), target: target, initialDeliveryCount: 0), handler)
    }

    /// Client: attaches a link to receive from `source`. Nothing comes before ``AMQPLink/grant(_:)``.
    public func attachReceiver(
        name: String, source: AMQPTerminus, target: AMQPTerminus? = nil, settlesSecond: Bool = false,
        properties: AMQPValue = .null, handler: any AMQPLinkHandler
    ) -> AMQPLink {
        attach(
            AMQPAttach(
                name: name, handle: freeHandle(), isReceiver: true, senderSettleMode: 0,
                receiverSettleMode: settlesSecond ? 1 : 0, source: source, target: target ?? .target(name),
                properties: properties), handler)
    }

    private func attach(_ attach: AMQPAttach, _ handler: any AMQPLinkHandler) -> AMQPLink {
        let link = AMQPLink(session: self, local: attach)
        link.handler = handler
        byLocalHandle[link.localHandle] = link
        connection?.send(.attach(attach), channel: localChannel)
        return link
    }

    func forget(_ link: AMQPLink) {
        byLocalHandle[link.localHandle] = nil
        if let remote = link.remoteHandle { byRemoteHandle[UInt64(remote)] = nil }
        for (id, entry) in sent where entry.link === link { sent.remove(id) }
        for (id, owner) in settling where owner === link { settling[id] = nil }
        stalled.removeAll { $0.transfer.handle == link.localHandle }
    }

    // MARK: Output

    /// Whether a transfer can be sent now: window, and a peer that reads.
    public var canSend: Bool {
        guard let connection, remoteIncomingWindow > 0, stalled.isEmpty, !isEnded else { return false }
        return connection.output.bytes.count < AMQPLimits.outputByteCount
    }

    func sendFlow(_ link: AMQPLink?, drain: Bool = false) {
        var flow = AMQPFlow(
            nextIncomingID: remoteChannel == nil ? nil : nextIncomingID, incomingWindow: incomingWindow,
            nextOutgoingID: nextOutgoingID, outgoingWindow: localBegin.outgoingWindow)
        if let link {
            flow.handle = link.localHandle
            flow.deliveryCount = link.deliveryCount
            flow.linkCredit = link.credit
            flow.available = 0
            flow.drain = drain
        }
        connection?.send(.flow(flow), channel: localChannel)
    }

    /// Numbers a delivery and writes it, `payload` straight into the output; splits it when it must.
    @inline(__always)
    func send(
        _ link: AMQPLink, tag: AMQPTag, format: UInt32, settled: Bool, token: AMQPUUID,
        payload: (inout AMQPWriter) -> Void
    ) -> UInt32 {
        guard let connection else { return 0 }
        let id = nextDeliveryID
        nextDeliveryID &+= 1
        if !settled { sent[UInt64(id)] = (link, token) }
        let transfer = AMQPTransfer(
            handle: link.localHandle, deliveryID: id, deliveryTag: tag, messageFormat: format, settled: settled)
        let start = connection.output.beginFrame(channel: localChannel)
        transfer.write(to: &connection.output)
        let payloadStart = connection.output.bytes.count
        payload(&connection.output)
        let size = connection.output.bytes.count - start
        if size <= connection.remoteFrameByteCount, remoteIncomingWindow > 0, stalled.isEmpty {
            connection.output.endFrame(start)
            nextOutgoingID &+= 1
            remoteIncomingWindow &-= 1
            connection.tellOutput()
        } else {
            let whole = Array(connection.output.bytes[payloadStart...])
            connection.output.bytes.removeSubrange(start...)
            stalled.append((transfer, whole[...]))
            flushStalled()
        }
        return id
    }

    private func flushStalled() {
        guard let connection else { return }
        // Room for the performative: its fields have at most this many bytes.
        let room = connection.remoteFrameByteCount - 128
        while remoteIncomingWindow > 0, var (transfer, payload) = stalled.first {
            let chunk = payload.prefix(room)
            payload = payload.dropFirst(room)
            transfer.more = !payload.isEmpty
            let start = connection.output.beginFrame(channel: localChannel)
            transfer.write(to: &connection.output)
            connection.output.bytes.append(contentsOf: chunk)
            connection.output.endFrame(start)
            nextOutgoingID &+= 1
            remoteIncomingWindow &-= 1
            if payload.isEmpty { stalled.removeFirst() } else { stalled[0] = (transfer, payload) }
        }
        connection.tellOutput()
    }

    /// Tells the outcome of deliveries to us (`asSender` false) or confirms what the peer told (`asSender` true).
    public func settle(first: UInt32, last: UInt32, _ state: DeliveryState?, asSender: Bool, isSettled: Bool = true) {
        connection?.send(
            .disposition(
                AMQPDisposition(isReceiver: !asSender, first: first, last: last, settled: isSettled, state: state)),
            channel: localChannel)
        guard asSender, isSettled else { return }
        for step in 0...(last &- first) { sent.remove(UInt64(first &+ step)) }
    }

    /// Client: tells the outcome of a delivery and waits for the peer to confirm it.
    public func settleAwaitingConfirmation(_ link: AMQPLink, _ id: UInt32, _ state: DeliveryState) {
        settling[id] = link
        settle(first: id, last: id, state, asSender: false, isSettled: false)
    }

    /// Ends the session because of an error of the peer's.
    func fail(_ error: AMQPError) {
        guard !isEnded else { return }
        isEnded = true
        connection?.send(.end(error), channel: localChannel)
        connection?.discard(self)
        connectionEnded(error)
    }

    func connectionEnded(_ error: AMQPError?) {
        let ended = Array(byLocalHandle.values)
        byLocalHandle = [:]
        byRemoteHandle = NumberMap()
        sent = NumberMap()
        settling = [:]
        stalled = []
        isEnded = true
        for link in ended { link.sessionEnded(error) }
        connection = nil
    }
}
