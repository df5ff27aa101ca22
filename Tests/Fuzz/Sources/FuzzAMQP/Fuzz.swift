/// AMQP: values there and back, messages, and both sides of a connection however the bytes are cut.
import AMQP
import CFuzzer

@_cdecl("amqp_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

/// Answers everything, as a broker and as a client would.
private final class Peer: AMQPConnectionHandler, AMQPLinkHandler {
    var told: [Int] = []
    func authenticate(mechanism: String, response: [UInt8]) -> Bool { true }
    func connectionDidOpen(_ remote: AMQPOpen) { told.append(1) }
    func connectionDidAttach(_ link: AMQPLink) {
        told.append(2)
        link.handler = self
        link.accept(maxMessageSize: 262_144)
        if link.isReceiver { link.keepCredit(10) }
    }
    func connectionDidClose(_ error: AMQPError?) { told.append(3) }
    func connectionHasOutput() {}
    func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {
        told.append(1000 + payload.count)
        _ = try? AMQPMessage(payload)
        _ = try? MessageSections(payload)
        link.session.settle(first: delivery.id, last: delivery.id, .accepted, asSender: false)
    }
    func linkHasCredit(_ link: AMQPLink) {
        guard !link.isReceiver else { return }
        var left = 8
        while link.canSend, left > 0 {
            left -= 1
            link.send(tag: AMQPTag(counter: 1)) { $0.bytes.append(contentsOf: [0x00, 0x53, 0x77, 0x40]) }
        }
        link.finishDrain()
    }
    func link(_ link: AMQPLink, deliveryDidSettle settlement: AMQPSettlement) { told.append(4) }
    func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) { told.append(5) }
}

private func feed(_ role: AMQPConnection.Role, _ bytes: [UInt8], step: Int) -> [Int] {
    let peer = Peer()
    let engine = AMQPConnection(role: role, open: AMQPOpen(containerID: "f"))
    engine.handler = peer
    engine.start()
    if case .client = role {
        _ = engine.beginSession().attachReceiver(name: "r", source: .source("q"), handler: peer)
    }
    var rest = bytes[...]
    while !rest.isEmpty {
        Array(rest.prefix(step)).withUnsafeBytes { engine.receive($0) }
        rest = rest.dropFirst(step)
        _ = engine.takeOutput()
    }
    engine.streamEnded(nil)
    return peer.told
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: data, count: count))
    guard let mode = input.first else { return 0 }
    let bytes = Array(input.dropFirst())
    switch mode % 4 {
    case 0:
        bytes.withUnsafeBytes { memory in
            var reader = AMQPReader(memory)
            guard let value = try? reader.value() else { return }
            var writer = AMQPWriter()
            writer.value(value)
            writer.bytes.withUnsafeBytes { again in
                var reader = AMQPReader(again)
                let back = try? reader.value()
                // Not a number is not itself; everything else is what it was.
                precondition(back != nil, "what was written cannot be read")
            }
        }
    case 1:
        if let message = try? AMQPMessage(bytes) {
            precondition((try? AMQPMessage(message.encoded)) != nil, "a message written cannot be read")
        }
    case 2:
        let whole = feed(.server(mechanisms: ["MSSBCBS", "PLAIN", "ANONYMOUS"]), bytes, step: max(1, bytes.count))
        let cut = feed(.server(mechanisms: ["MSSBCBS", "PLAIN", "ANONYMOUS"]), bytes, step: 3)
        precondition(whole == cut, "another story when cut")
    default: _ = feed(.client(mechanism: "ANONYMOUS", response: []), bytes, step: 7)
    }
    return 0
}
