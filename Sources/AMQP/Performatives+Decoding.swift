/// Performatives from bytes. Missing mandatory fields and wrong types are errors; unknown trailing fields are not.

extension Performative {
    static func read(_ reader: inout AMQPReader) throws(AMQPError) -> Performative {
        let descriptor = try reader.descriptor()
        var fields = try reader.fields()
        switch descriptor {
        case AMQPDescriptor.transfer: return .transfer(try fields.transfer())
        case AMQPDescriptor.disposition: return .disposition(try fields.disposition())
        case AMQPDescriptor.flow: return .flow(try fields.flow())
        case AMQPDescriptor.open: return .open(try fields.open())
        case AMQPDescriptor.begin: return .begin(try fields.begin())
        case AMQPDescriptor.attach: return .attach(try fields.attach())
        case AMQPDescriptor.detach:
            let handle = try fields.mandatory("detach.handle")
            let closed = try fields.bool() ?? false
            return .detach(handle: handle, closed: closed, error: try fields.error())
        case AMQPDescriptor.end: return .end(try fields.error())
        case AMQPDescriptor.close: return .close(try fields.error())
        default: throw .malformed("0x\(String(descriptor, radix: 16)) is no performative")
        }
    }
}

extension AMQPFields {
    fileprivate mutating func mandatory(_ name: String) throws(AMQPError) -> UInt32 {
        guard let value = try uint() else { throw .malformed("\(name) is missing") }
        return value
    }

    @inline(__always)
    fileprivate mutating func transfer() throws(AMQPError) -> AMQPTransfer {
        var transfer = AMQPTransfer(handle: try mandatory("transfer.handle"))
        transfer.deliveryID = try uint()
        transfer.deliveryTag = try tag()
        transfer.messageFormat = try uint()
        transfer.settled = try bool()
        transfer.more = try bool() ?? false
        guard count > 0 else { return transfer }
        try skip()
        transfer.state = try state()
        try skip()
        transfer.aborted = try bool() ?? false
        return transfer
    }

    private mutating func tag() throws(AMQPError) -> AMQPTag? {
        guard count > 0 else { return nil }
        count -= 1
        switch try reader.octet() {
        case 0x40: return nil
        case 0xA0:
            let length = Int(try reader.octet())
            guard length <= reader.remaining else { throw .malformed("a value ends past its frame") }
            let at = reader.position
            guard let tag = AMQPTag(UnsafeRawBufferPointer(rebasing: reader.bytes[at..<at + length])) else {
                throw .malformed("a delivery tag is longer than 32 bytes")
            }
            try reader.pass(length)
            return tag
        default: throw .malformed("a delivery tag was expected")
        }
    }

    fileprivate mutating func disposition() throws(AMQPError) -> AMQPDisposition {
        guard let isReceiver = try bool() else { throw .malformed("disposition.role is missing") }
        let first = try mandatory("disposition.first")
        let last = try uint() ?? first
        let settled = try bool() ?? false
        return AMQPDisposition(isReceiver: isReceiver, first: first, last: last, settled: settled, state: try state())
    }

    fileprivate mutating func flow() throws(AMQPError) -> AMQPFlow {
        let nextIncomingID = try uint()
        let incomingWindow = try mandatory("flow.incoming-window")
        let nextOutgoingID = try mandatory("flow.next-outgoing-id")
        let outgoingWindow = try mandatory("flow.outgoing-window")
        var flow = AMQPFlow(
            nextIncomingID: nextIncomingID, incomingWindow: incomingWindow, nextOutgoingID: nextOutgoingID,
            outgoingWindow: outgoingWindow)
        flow.handle = try uint()
        flow.deliveryCount = try uint()
        flow.linkCredit = try uint()
        flow.available = try uint()
        flow.drain = try bool() ?? false
        flow.echo = try bool() ?? false
        return flow
    }

    fileprivate mutating func open() throws(AMQPError) -> AMQPOpen {
        guard let containerID = try text() else { throw .malformed("open.container-id is missing") }
        var open = AMQPOpen(containerID: containerID)
        open.hostname = try text()
        open.maxFrameSize = try uint() ?? .max
        open.channelMax = UInt16(truncatingIfNeeded: min(try uint() ?? 65_535, 65_535))
        open.idleTimeout = try uint()
        try skip()
        try skip()
        open.offeredCapabilities = try value()
        open.desiredCapabilities = try value()
        open.properties = try value()
        return open
    }

    fileprivate mutating func begin() throws(AMQPError) -> AMQPBegin {
        let remoteChannel = try uint()
        let nextOutgoingID = try mandatory("begin.next-outgoing-id")
        let incomingWindow = try mandatory("begin.incoming-window")
        let outgoingWindow = try mandatory("begin.outgoing-window")
        return AMQPBegin(
            remoteChannel: remoteChannel.map { UInt16(truncatingIfNeeded: $0) }, nextOutgoingID: nextOutgoingID,
            incomingWindow: incomingWindow, outgoingWindow: outgoingWindow, handleMax: try uint() ?? .max)
    }

    fileprivate mutating func attach() throws(AMQPError) -> AMQPAttach {
        guard let name = try text() else { throw .malformed("attach.name is missing") }
        let handle = try mandatory("attach.handle")
        guard let isReceiver = try bool() else { throw .malformed("attach.role is missing") }
        var attach = AMQPAttach(name: name, handle: handle, isReceiver: isReceiver)
        attach.senderSettleMode = try ubyte() ?? 2
        attach.receiverSettleMode = try ubyte() ?? 0
        attach.source = try terminus()
        attach.target = try terminus()
        try skip()
        try skip()
        attach.initialDeliveryCount = try uint()
        attach.maxMessageSize = try ulong()
        attach.offeredCapabilities = try value()
        attach.desiredCapabilities = try value()
        attach.properties = try value()
        return attach
    }

    private mutating func terminus() throws(AMQPError) -> AMQPTerminus? {
        switch try value() {
        case .null: return nil
        case .described(.ulong(let descriptor), .list(let fields)):
            return AMQPTerminus(descriptor: descriptor, fields: fields)
        case .described(.symbol(let name), .list(let fields)):
            guard let descriptor = AMQPDescriptor.named(name) else { throw .malformed("'\(name)' is no terminus") }
            return AMQPTerminus(descriptor: descriptor, fields: fields)
        default: throw .malformed("a source or a target was expected")
        }
    }
}

extension AMQPReader {
    /// Moves past `count` bytes that were looked at in place.
    mutating func pass(_ count: Int) throws(AMQPError) {
        guard count <= remaining else { throw .malformed("a value ends past its frame") }
        self = AMQPReader(bytes, from: position + count, to: end)
    }
}
