/// Performatives to bytes, each with its full number of fields: azure-servicebus up to 7.14.3 indexes them
/// without looking at the count.

extension Performative {
    /// A whole frame on `channel`.
    func write(channel: UInt16, to writer: inout AMQPWriter) {
        let start = writer.beginFrame(channel: channel)
        switch self {
        case .open(let open): open.write(to: &writer)
        case .begin(let begin): begin.write(to: &writer)
        case .attach(let attach): attach.write(to: &writer)
        case .flow(let flow): flow.write(to: &writer)
        case .disposition(let disposition): disposition.write(to: &writer)
        case .detach(let handle, let closed, let error):
            writer.composite(AMQPDescriptor.detach, count: 3) { writer in
                writer.uint(handle)
                writer.bool(closed)
                writer.error(error)
            }
        case .end(let error): writer.composite(AMQPDescriptor.end, count: 1) { $0.error(error) }
        case .close(let error): writer.composite(AMQPDescriptor.close, count: 1) { $0.error(error) }
        case .transfer(let transfer): transfer.write(to: &writer)
        }
        writer.endFrame(start)
    }
}

extension AMQPWriter {
    /// Begins a frame and returns where; ``endFrame(_:)`` puts in its size.
    mutating func beginFrame(channel: UInt16, type: UInt8 = 0) -> Int {
        let start = bytes.count
        append(upTo: 8) { cursor in
            cursor.number(UInt32(0))
            cursor.octet(2)
            cursor.octet(type)
            cursor.number(channel)
        }
        return start
    }

    mutating func endFrame(_ start: Int) { patch(bytes.count - start, at: start) }

    fileprivate mutating func text(_ text: String?) {
        if let text { string(text) } else { null() }
    }

    fileprivate mutating func terminus(_ terminus: AMQPTerminus?) {
        guard let terminus else { return null() }
        octet(0x00)
        ulong(terminus.descriptor)
        value(.list(terminus.fields))
    }
}

extension AMQPOpen {
    fileprivate func write(to writer: inout AMQPWriter) {
        writer.composite(AMQPDescriptor.open, count: 10) { writer in
            writer.string(containerID)
            writer.text(hostname)
            writer.uint(maxFrameSize)
            writer.value(.ushort(channelMax))
            writer.uint(idleTimeout)
            writer.null()
            writer.null()
            writer.value(offeredCapabilities)
            writer.value(desiredCapabilities)
            writer.value(properties)
        }
    }
}

extension AMQPBegin {
    fileprivate func write(to writer: inout AMQPWriter) {
        writer.composite(AMQPDescriptor.begin, count: 8) { writer in
            if let remoteChannel { writer.value(.ushort(remoteChannel)) } else { writer.null() }
            writer.uint(nextOutgoingID)
            writer.uint(incomingWindow)
            writer.uint(outgoingWindow)
            writer.uint(handleMax)
            writer.null()
            writer.null()
            writer.null()
        }
    }
}

extension AMQPAttach {
    fileprivate func write(to writer: inout AMQPWriter) {
        writer.composite(AMQPDescriptor.attach, count: 14) { writer in
            writer.string(name)
            writer.uint(handle)
            writer.bool(isReceiver)
            writer.ubyte(senderSettleMode)
            writer.ubyte(receiverSettleMode)
            writer.terminus(source)
            writer.terminus(target)
            writer.null()
            writer.bool(false)
            writer.uint(initialDeliveryCount)
            if let maxMessageSize { writer.ulong(maxMessageSize) } else { writer.null() }
            writer.value(offeredCapabilities)
            writer.value(desiredCapabilities)
            writer.value(properties)
        }
    }
}

extension AMQPFlow {
    fileprivate func write(to writer: inout AMQPWriter) {
        writer.composite(AMQPDescriptor.flow, count: 11) { writer in
            writer.uint(nextIncomingID)
            writer.uint(incomingWindow)
            writer.uint(nextOutgoingID)
            writer.uint(outgoingWindow)
            writer.uint(handle)
            writer.uint(deliveryCount)
            writer.uint(linkCredit)
            writer.uint(available)
            writer.bool(drain)
            writer.bool(echo)
            writer.null()
        }
    }
}

extension AMQPDisposition {
    fileprivate func write(to writer: inout AMQPWriter) {
        writer.composite(AMQPDescriptor.disposition, count: 6) { writer in
            writer.bool(isReceiver)
            writer.uint(first)
            writer.uint(last)
            writer.bool(settled)
            if let state { state.write(to: &writer) } else { writer.null() }
            writer.bool(false)
        }
    }
}

extension AMQPTransfer {
    /// Bytes the performative may have.
    static let greatestByteCount = 96

    /// The performative; the payload follows it in the frame.
    func write(to writer: inout AMQPWriter) {
        writer.append(upTo: Self.greatestByteCount) { cursor in
            cursor.described(AMQPDescriptor.transfer)
            let list = cursor.begin(0xC0, count: 11)
            cursor.uint(handle)
            cursor.uint(deliveryID)
            if let deliveryTag {
                cursor.octet(0xA0)
                cursor.octet(UInt8(deliveryTag.count))
                deliveryTag.append(to: &cursor)
            } else {
                cursor.null()
            }
            cursor.uint(messageFormat)
            if let settled { cursor.bool(settled) } else { cursor.null() }
            cursor.bool(more)
            cursor.null()
            cursor.null()
            cursor.bool(false)
            cursor.bool(aborted)
            cursor.bool(false)
            cursor.end(list)
        }
    }
}
