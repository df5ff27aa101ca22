/// Where the sections of an encoded message lie (specification part 3.2), found without decoding them.

/// Ranges of a message's bytes, each section with its descriptor.
public struct MessageSections: Equatable, Sendable {
    public var header: Range<Int>?
    public var deliveryAnnotations: Range<Int>?
    public var messageAnnotations: Range<Int>?
    public var properties: Range<Int>?
    public var applicationProperties: Range<Int>?
    /// All body sections.
    public var body: Range<Int>
    public var footer: Range<Int>?
    /// The first body section's descriptor: data, sequence or value; 0 when there is no body.
    public var bodyKind: UInt64 = 0
    /// The bare message: properties, application properties, body, footer, as the sender wrote them.
    public private(set) var bare = 0..<0

    /// Looks for the sections of `bytes`; unknown ones and wrong orders are errors.
    public init(_ bytes: UnsafeRawBufferPointer) throws(AMQPError) {
        var reader = AMQPReader(bytes)
        var bodyStart: Int?
        var bodyEnd = 0
        var bareStart: Int?
        while !reader.isAtEnd {
            let start = reader.position
            var probe = reader
            let descriptor = try probe.descriptor()
            try reader.skip()
            let range = start..<reader.position
            if descriptor >= AMQPDescriptor.properties {
                bareStart = bareStart ?? start
                bare = (bareStart ?? start)..<reader.position
            }
            switch descriptor {
            case AMQPDescriptor.header: header = range
            case AMQPDescriptor.deliveryAnnotations: deliveryAnnotations = range
            case AMQPDescriptor.messageAnnotations: messageAnnotations = range
            case AMQPDescriptor.properties: properties = range
            case AMQPDescriptor.applicationProperties: applicationProperties = range
            case AMQPDescriptor.data, AMQPDescriptor.sequence, AMQPDescriptor.value:
                if bodyStart == nil {
                    bodyStart = start
                    bodyKind = descriptor
                }
                bodyEnd = reader.position
            case AMQPDescriptor.footer: footer = range
            default: throw .malformed("0x\(String(descriptor, radix: 16)) is no section of a message")
            }
        }
        body = (bodyStart ?? 0)..<max(bodyStart ?? 0, bodyEnd)
    }

    /// The data sections' ranges, without their descriptors and lengths.
    public static func dataSections(
        _ bytes: UnsafeRawBufferPointer, body: Range<Int>
    ) throws(AMQPError) -> [Range<Int>] {
        var reader = AMQPReader(bytes, from: body.lowerBound, to: body.upperBound)
        var found: [Range<Int>] = []
        while !reader.isAtEnd {
            guard try reader.descriptor() == AMQPDescriptor.data else {
                throw .malformed("a data section was expected")
            }
            let start = reader.position
            try reader.skip()
            let prefix = bytes[start] == 0xA0 ? 2 : bytes[start] == 0xB0 ? 5 : 0
            guard prefix > 0 else { throw .malformed("a data section holds no binary") }
            found.append(start + prefix..<reader.position)
        }
        return found
    }
}
