/// The state machines of both sides, talking to each other without a network.
@testable import AMQP
import Testing

/// One side and what it was told.
final class Peer: AMQPConnectionHandler, AMQPLinkHandler {
    let engine: AMQPConnection
    var opened = 0
    var closed: [AMQPError?] = []
    var attached: [AMQPLink] = []
    var received: [(delivery: AMQPDelivery, bytes: [UInt8])] = []
    var settled: [AMQPSettlement] = []
    var detached: [AMQPError?] = []
    var drained = 0
    var mechanism: String?
    var accepts = true
    var answers: (AMQPLink) -> Void = { $0.accept(maxMessageSize: 1_048_576) }

    init(_ role: AMQPConnection.Role, limits: AMQPLimits = AMQPLimits()) {
        engine = AMQPConnection(role: role, open: AMQPOpen(containerID: "peer"), limits: limits)
        engine.handler = self
    }

    func authenticate(mechanism: String, response: [UInt8]) -> Bool {
        self.mechanism = mechanism
        return accepts
    }
    func connectionDidOpen(_ remote: AMQPOpen) { opened += 1 }
    func connectionDidAttach(_ link: AMQPLink) {
        attached.append(link)
        link.handler = self
        answers(link)
    }
    func connectionDidClose(_ error: AMQPError?) { closed.append(error) }
    func connectionHasOutput() {}
    func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {
        received.append((delivery, Array(payload)))
    }
    func link(_ link: AMQPLink, deliveryDidSettle settlement: AMQPSettlement) { settled.append(settlement) }
    func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) { detached.append(error) }
    func linkDidDrain(_ link: AMQPLink) { drained += 1 }
}

/// Carries bytes between two sides, in pieces of a size, until both are silent.
func talk(_ left: Peer, _ right: Peer, pieces: Int = .max) {
    while left.engine.hasOutput || right.engine.hasOutput {
        for (from, to) in [(left, right), (right, left)] {
            var bytes = from.engine.takeOutput()[...]
            while !bytes.isEmpty {
                Array(bytes.prefix(pieces)).withUnsafeBytes { to.engine.receive($0) }
                bytes = bytes.dropFirst(pieces)
            }
        }
    }
}

@Suite struct ConnectionTests {
    static func pair(limits: AMQPLimits = AMQPLimits()) -> (client: Peer, server: Peer) {
        let client = Peer(.client(mechanism: "ANONYMOUS", response: []), limits: limits)
        let server = Peer(.server(mechanisms: ["PLAIN", "ANONYMOUS"]), limits: limits)
        client.engine.start()
        return (client, server)
    }

    @Test(arguments: [1, 7, 100, Int.max]) func `two sides open, attach, send and settle, however the bytes are cut`(
        pieces: Int
    ) {
        let (client, server) = Self.pair()
        let link = client.engine.beginSession().attachSender(name: "l", target: .target("q"), handler: client)
        talk(client, server, pieces: pieces)
        #expect(client.opened == 1 && server.opened == 1 && server.mechanism == "ANONYMOUS")
        server.attached[0].keepCredit(10)
        talk(client, server, pieces: pieces)
        #expect(link.credit == 10)
        let big = [UInt8](repeating: 7, count: 1_000_000)
        link.send(tag: AMQPTag(counter: 1), token: AMQPUUID(high: 0, low: 5)) { $0.bytes.append(contentsOf: big) }
        talk(client, server, pieces: pieces)
        #expect(server.received.count == 1 && server.received[0].bytes == big)
        let delivery = server.received[0].delivery
        server.attached[0].session.settle(first: delivery.id, last: delivery.id, .accepted, asSender: false)
        talk(client, server, pieces: pieces)
        #expect(client.settled.count == 1 && client.settled[0].token.low == 5 && client.settled[0].state == .accepted)
        client.engine.close()
        talk(client, server)
        #expect(client.closed.count == 1 && server.closed.count == 1)
    }

    @Test func `a message above the limit is told as too large, and its bytes are not kept`() {
        var limits = AMQPLimits()
        limits.messageByteCount = 1000
        limits.frameByteCount = 512
        let (client, server) = Self.pair(limits: limits)
        let link = client.engine.beginSession().attachSender(name: "l", target: .target("q"), handler: client)
        talk(client, server)
        server.attached[0].keepCredit(10)
        talk(client, server)
        for count in [1000, 1001] {
            link.send(tag: AMQPTag(counter: 1)) { $0.bytes.append(contentsOf: [UInt8](repeating: 1, count: count)) }
        }
        talk(client, server)
        #expect(server.received.map(\.delivery.isTooLarge) == [false, true])
        #expect(server.received.map(\.bytes.count) == [1000, 0])
    }

    @Test func `a refusal has no termini and then detaches`() {
        let (client, server) = Self.pair()
        server.answers = { $0.refuse(AMQPError("amqp:not-found", "no")) }
        let link = client.engine.beginSession().attachSender(name: "l", target: .target("q"), handler: client)
        talk(client, server)
        #expect(link.remote.target == nil && link.remote.source == nil)
        #expect(client.detached.compactMap { $0?.condition } == ["amqp:not-found"])
    }

    @Test func `wrong credentials end the connection`() {
        let (client, server) = Self.pair()
        server.accepts = false
        talk(client, server)
        #expect(server.closed.first??.condition == "amqp:unauthorized-access")
        #expect(client.closed.first??.condition == "amqp:unauthorized-access")
    }

    @Test func `nothing is sent beyond the window, and the rest follows`() {
        var limits = AMQPLimits()
        limits.frameByteCount = 512
        limits.incomingWindow = 4
        let (client, server) = Self.pair(limits: limits)
        let link = client.engine.beginSession().attachSender(name: "l", target: .target("q"), handler: client)
        talk(client, server)
        server.attached[0].keepCredit(10)
        talk(client, server)
        link.send(tag: AMQPTag(counter: 1)) { $0.bytes.append(contentsOf: [UInt8](repeating: 1, count: 20_000)) }
        #expect(!link.canSend)
        // At most four frames are on the way.
        #expect(client.engine.output.bytes.count <= 4 * 512)
        talk(client, server)
        #expect(server.received.first?.bytes.count == 20_000)
        #expect(link.canSend)
    }

    @Test func `a range of settlements that claims everything costs what there is`() {
        let (client, server) = Self.pair()
        server.answers = { $0.accept(maxMessageSize: 0) }
        let link = client.engine.beginSession().attachReceiver(name: "l", source: .source("q"), handler: client)
        talk(client, server)
        link.grant(.max)
        talk(client, server)
        let sender = server.attached[0]
        for number in 0..<10 as Range<UInt32> {
            sender.send(tag: AMQPTag(counter: number), token: AMQPUUID(high: 0, low: UInt64(number))) { $0.null() }
        }
        talk(client, server)
        link.session.settle(first: 0, last: .max, .accepted, asSender: false)
        talk(client, server)
        #expect(server.settled.map(\.token.low) == Array(0..<10))
    }

    @Test func `draining gives the credit back`() {
        let (client, server) = Self.pair()
        let link = client.engine.beginSession().attachReceiver(name: "l", source: .source("q"), handler: client)
        talk(client, server)
        link.grant(5)
        talk(client, server)
        let sender = server.attached[0]
        sender.send(tag: AMQPTag(counter: 0), settled: true) { $0.null() }
        let flow = AMQPFlow(
            nextIncomingID: 0, incomingWindow: 100, nextOutgoingID: 0, outgoingWindow: 100, handle: 0,
            deliveryCount: 0, linkCredit: 5, available: nil, drain: true, echo: false)
        client.engine.send(.flow(flow), channel: 0)
        talk(client, server)
        #expect(sender.isDraining && sender.credit == 4)
        sender.finishDrain()
        talk(client, server)
        #expect(sender.credit == 0 && link.credit == 0)
    }

    @Test func `a receiver that drains hears when all under way has come`() {
        let (client, server) = Self.pair()
        let link = client.engine.beginSession().attachReceiver(name: "l", source: .source("q"), handler: client)
        talk(client, server)
        link.grant(5)
        talk(client, server)
        let sender = server.attached[0]
        sender.send(tag: AMQPTag(counter: 0), settled: true) { $0.null() }
        link.drain()
        #expect(client.drained == 0)
        talk(client, server)
        #expect(client.drained == 0 && client.received.count == 1 && sender.isDraining)
        sender.finishDrain()
        talk(client, server)
        #expect(client.drained == 1 && link.credit == 0 && !link.isDraining)
        // Without credit there is nothing to wait for.
        link.drain()
        #expect(client.drained == 2)
        // Messages that use up the credit end it too, and credit can be given again.
        link.grant(2)
        talk(client, server)
        #expect(sender.credit == 2)
        for _ in 0..<2 { sender.send(tag: AMQPTag(counter: 0), settled: true) { $0.null() } }
        link.drain()
        talk(client, server)
        #expect(client.drained == 3 && client.received.count == 3)
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\n\r\n", "AMQP\u{0}\u{0}\u{9}\u{1}",
        "AMQP\u{3}\u{1}\u{0}\u{0}\u{0}\u{0}\u{0}\u{7}\u{2}\u{1}\u{0}\u{0}",
    ]) func `strangers are answered with a header and shown out`(text: String) {
        let server = Peer(.server(mechanisms: ["ANONYMOUS"]))
        Array(text.utf8).withUnsafeBytes { server.engine.receive($0) }
        #expect(server.closed.count == 1)
        #expect(server.engine.takeOutput().starts(with: Array("AMQP".utf8)))
    }

    @Test func `a frame at the limit passes, one past it ends the connection`() {
        for (extra, isOver) in [(0, false), (1, true)] {
            let (client, server) = Self.pair()
            talk(client, server)
            let size = UInt32(262_144 + extra)
            var bytes = withUnsafeBytes(of: size.bigEndian) { Array($0) } + [2, 0, 0, 0]
            bytes += [UInt8](repeating: 0, count: isOver ? 0 : Int(size) - 8)
            // A body of zeros is no performative; it is the size that is asked about.
            bytes.withUnsafeBytes { server.engine.receive($0) }
            #expect((server.closed.first??.condition == "amqp:connection:framing-error") == isOver)
        }
    }

    @Test func `links and channels past their limits are refused`() {
        var limits = AMQPLimits()
        limits.handleMax = 3
        limits.channelMax = 2
        let client = Peer(.client(mechanism: nil, response: []))
        let server = Peer(.server(mechanisms: ["ANONYMOUS"]), limits: limits)
        client.engine.start()
        let session = client.engine.beginSession()
        for number in 0...3 { _ = session.attachSender(name: "\(number)", target: .target("q"), handler: client) }
        talk(client, server)
        #expect(server.attached.count == 4)
        _ = session.attachSender(name: "4", target: .target("q"), handler: client)
        talk(client, server)
        #expect(client.detached.first??.condition == "amqp:session:handle-in-use")
        for _ in 0..<4 { _ = client.engine.beginSession() }
        talk(client, server)
        #expect(server.closed.first??.condition == "amqp:connection:framing-error")
    }
}
