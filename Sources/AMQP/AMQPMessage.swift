/// A whole message as values, for what is not on the hot path: requests, answers, the trigger, the REST face.

/// A decoded message.
public struct AMQPMessage: Equatable, Sendable {
    /// The fields of `header` that are used.
    public struct Header: Equatable, Sendable {
        public var durable = false
        public var priority: UInt8?
        /// Milliseconds.
        public var timeToLive: UInt32?
        public var firstAcquirer = false
        public var deliveryCount: UInt32 = 0

        public init() {}
    }

    /// The immutable properties.
    public struct Properties: Equatable, Sendable {
        public var messageID = AMQPValue.null
        public var userID: [UInt8]?
        public var to: String?
        public var subject: String?
        public var replyTo: String?
        public var correlationID = AMQPValue.null
        public var contentType: String?
        public var contentEncoding: String?
        public var absoluteExpiryTime = AMQPValue.null
        public var creationTime = AMQPValue.null
        public var groupID: String?
        public var groupSequence: UInt32?
        public var replyToGroupID: String?

        public init() {}
    }

    /// What a message carries.
    public enum Body: Equatable, Sendable {
        case none
        case data([UInt8])
        case value(AMQPValue)
        case sequence([AMQPValue])
    }

    public var header = Header()
    public var deliveryAnnotations: [AMQPPair] = []
    public var messageAnnotations: [AMQPPair] = []
    public var properties = Properties()
    public var applicationProperties: [AMQPPair] = []
    public var body = Body.none

    public init(body: Body = .none) { self.body = body }

    // MARK: Decoding

    public init(_ bytes: UnsafeRawBufferPointer) throws(AMQPError) {
        var reader = AMQPReader(bytes)
        while !reader.isAtEnd {
            let descriptor = try reader.descriptor()
            switch descriptor {
            case AMQPDescriptor.header: header = try Header(try reader.fields())
            case AMQPDescriptor.properties: properties = try Properties(try reader.fields())
            case AMQPDescriptor.deliveryAnnotations: deliveryAnnotations = try reader.value().pairs ?? []
            case AMQPDescriptor.messageAnnotations: messageAnnotations = try reader.value().pairs ?? []
            case AMQPDescriptor.applicationProperties: applicationProperties = try reader.value().pairs ?? []
            case AMQPDescriptor.data:
                guard let part = try reader.value().bytes else { throw .malformed("a data section holds no binary") }
                if case .data(let before) = body { body = .data(before + part) } else { body = .data(part) }
            case AMQPDescriptor.value: body = .value(try reader.value())
            case AMQPDescriptor.sequence:
                let part = try reader.value().elements ?? []
                if case .sequence(let before) = body { body = .sequence(before + part) } else { body = .sequence(part) }
            case AMQPDescriptor.footer: try reader.skip()
            default: throw .malformed("0x\(String(descriptor, radix: 16)) is no section of a message")
            }
        }
    }

    /// Decodes bytes that are held.
    public init(_ bytes: [UInt8]) throws(AMQPError) {
        self = try bytes.withUnsafeBytes { memory -> Result<AMQPMessage, AMQPError> in
            do throws(AMQPError) {
                return .success(try AMQPMessage(memory))
            } catch {
                return .failure(error)
            }
        }.get()
    }

    // MARK: Encoding

    /// Appends the encoded message.
    public func write(to writer: inout AMQPWriter) {
        if header != Header() { header.write(to: &writer) }
        section(AMQPDescriptor.deliveryAnnotations, deliveryAnnotations, &writer)
        section(AMQPDescriptor.messageAnnotations, messageAnnotations, &writer)
        if properties != Properties() { properties.write(to: &writer) }
        section(AMQPDescriptor.applicationProperties, applicationProperties, &writer)
        switch body {
        case .none: break
        case .data(let bytes):
            writer.octet(0x00)
            writer.ulong(AMQPDescriptor.data)
            writer.binary(bytes)
        case .value(let value):
            writer.octet(0x00)
            writer.ulong(AMQPDescriptor.value)
            writer.value(value)
        case .sequence(let values):
            writer.octet(0x00)
            writer.ulong(AMQPDescriptor.sequence)
            writer.value(.list(values))
        }
    }

    /// The encoded message.
    public var encoded: [UInt8] {
        var writer = AMQPWriter()
        write(to: &writer)
        return writer.bytes
    }

    private func section(_ descriptor: UInt64, _ pairs: [AMQPPair], _ writer: inout AMQPWriter) {
        guard !pairs.isEmpty else { return }
        writer.octet(0x00)
        writer.ulong(descriptor)
        writer.map(pairs)
    }
}

extension AMQPMessage.Header {
    /// From the section's fields.
    public init(_ fields: AMQPFields) throws(AMQPError) {
        var fields = fields
        durable = try fields.bool() ?? false
        priority = try fields.ubyte()
        timeToLive = try fields.uint()
        firstAcquirer = try fields.bool() ?? false
        deliveryCount = try fields.uint() ?? 0
    }

    /// Appends the section.
    public func write(to writer: inout AMQPWriter) {
        writer.composite(AMQPDescriptor.header, count: 5) { writer in
            writer.bool(durable)
            if let priority { writer.ubyte(priority) } else { writer.null() }
            writer.uint(timeToLive)
            writer.bool(firstAcquirer)
            writer.uint(deliveryCount)
        }
    }
}

extension AMQPMessage.Properties {
    /// From the section's fields.
    public init(_ fields: AMQPFields) throws(AMQPError) {
        var fields = fields
        messageID = try fields.value()
        userID = try fields.binary()
        to = try fields.text()
        subject = try fields.text()
        replyTo = try fields.text()
        correlationID = try fields.value()
        contentType = try fields.text()
        contentEncoding = try fields.text()
        absoluteExpiryTime = try fields.value()
        creationTime = try fields.value()
        groupID = try fields.text()
        groupSequence = try fields.uint()
        replyToGroupID = try fields.text()
    }

    /// Appends the section.
    public func write(to writer: inout AMQPWriter) {
        let text = { (text: String?) in text.map { AMQPValue.string($0) } ?? .null }
        let symbol = { (text: String?) in text.map { AMQPValue.symbol($0) } ?? .null }
        writer.composite(AMQPDescriptor.properties, count: 13) { writer in
            writer.value(messageID)
            if let userID { writer.binary(userID) } else { writer.null() }
            writer.value(text(to))
            writer.value(text(subject))
            writer.value(text(replyTo))
            writer.value(correlationID)
            writer.value(symbol(contentType))
            writer.value(symbol(contentEncoding))
            writer.value(absoluteExpiryTime)
            writer.value(creationTime)
            writer.value(text(groupID))
            writer.uint(groupSequence)
            writer.value(text(replyToGroupID))
        }
    }
}
