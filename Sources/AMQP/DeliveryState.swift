/// How a delivery ended, or stands: the outcomes of the standard.

/// The state in a transfer or a disposition.
public enum DeliveryState: Equatable, Sendable {
    case received
    case accepted
    case rejected(AMQPError?)
    case released
    case modified(failed: Bool, undeliverableHere: Bool, annotations: [AMQPPair])
    /// A state of somebody's own, for example of transactions.
    case other(UInt64)

    static func read(_ reader: inout AMQPReader) throws(AMQPError) -> DeliveryState {
        let descriptor = try reader.descriptor()
        var fields = try reader.fields()
        switch descriptor {
        case AMQPDescriptor.accepted: return .accepted
        case AMQPDescriptor.released: return .released
        case AMQPDescriptor.received: return .received
        case AMQPDescriptor.rejected: return .rejected(try fields.error())
        case AMQPDescriptor.modified:
            let failed = try fields.bool() ?? false
            let undeliverable = try fields.bool() ?? false
            return .modified(
                failed: failed, undeliverableHere: undeliverable, annotations: try fields.value().pairs ?? [])
        default: return .other(descriptor)
        }
    }

    func write(to writer: inout AMQPWriter) {
        switch self {
        case .accepted: writer.bytes.append(contentsOf: [0x00, 0x53, 0x24, 0x45])
        case .released, .received, .other: writer.bytes.append(contentsOf: [0x00, 0x53, 0x26, 0x45])
        case .rejected(let error):
            writer.composite(AMQPDescriptor.rejected, count: 1) { $0.error(error) }
        case .modified(let failed, let undeliverable, let annotations):
            writer.composite(AMQPDescriptor.modified, count: 3) { writer in
                writer.bool(failed)
                writer.bool(undeliverable)
                if annotations.isEmpty { writer.null() } else { writer.map(annotations) }
            }
        }
    }
}

extension AMQPFields {
    /// A delivery state, or nil.
    mutating func state() throws(AMQPError) -> DeliveryState? {
        guard try peek() else { return nil }
        return try DeliveryState.read(&reader)
    }

    /// An error, or nil.
    mutating func error() throws(AMQPError) -> AMQPError? {
        guard try peek() else { return nil }
        guard try reader.descriptor() == AMQPDescriptor.error else { throw .malformed("an error was expected") }
        var fields = try reader.fields()
        let condition = try fields.text() ?? "amqp:internal-error"
        let text = try fields.text() ?? ""
        return AMQPError(condition, text, info: try fields.value().pairs ?? [])
    }

    /// Whether the next field is there; then the reader stands on it.
    private mutating func peek() throws(AMQPError) -> Bool {
        guard count > 0 else { return false }
        count -= 1
        guard !reader.isAtEnd else { throw .malformed("a list ends before its last element") }
        guard reader.bytes[reader.position] == 0x40 else { return true }
        _ = try reader.octet()
        return false
    }
}

extension AMQPWriter {
    /// An error with all three fields: azure-servicebus reads the third without looking whether it is there.
    mutating func error(_ error: AMQPError?) {
        guard let error else { return null() }
        composite(AMQPDescriptor.error, count: 3) { writer in
            writer.symbol(error.condition)
            writer.string(error.text)
            writer.map(error.info)
        }
    }
}
