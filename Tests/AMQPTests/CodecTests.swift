/// The codec: values there and back, bounds at their edges, bytes that are none.
@testable import AMQP
import Testing

@Suite struct CodecTests {
    static let values: [AMQPValue] = [
        .null, .bool(true), .bool(false), .ubyte(7), .ushort(700), .uint(0), .uint(200), .uint(70_000), .ulong(0),
        .ulong(255), .ulong(.max), .byte(-7), .short(-700), .int(-70_000), .int(5), .long(-5), .long(.min),
        .float(1.5), .double(-2.25), .decimal([1, 2, 3, 4]), .decimal([UInt8](repeating: 9, count: 16)), .char(0x1F600),
        .timestamp(1_700_000_000_000), .uuid(AMQPUUID(high: 1, low: 2)), .binary([]),
        .binary([UInt8](repeating: 3, count: 300)), .string("ä"), .string(String(repeating: "x", count: 256)),
        .symbol("s"), .list([]), .list([.null, .string("x"), .list([.uint(1)])]), .map([]),
        .map([AMQPPair(symbol: "a", .long(1)), AMQPPair(string: "b", .map([]))]), .array([]),
        .array([.uint(1), .uint(300)]), .array([.symbol("a"), .symbol("b")]),
        .array([.uuid(AMQPUUID(high: 3, low: 4))]), .array([.list([.uint(1)]), .list([])]),
        .array([.described(.ulong(1), .string("x")), .described(.ulong(1), .string("y"))]),
        .described(.ulong(0x70), .list([.bool(true)])), .described(.symbol("x"), .string("y")),
    ]

    static func decode(_ bytes: [UInt8]) throws -> AMQPValue {
        try bytes.withUnsafeBytes { memory in
            var reader = AMQPReader(memory)
            let value = try reader.value()
            guard reader.isAtEnd else { throw AMQPError("test", "bytes left") }
            return value
        }
    }

    @Test(arguments: values) func `a value comes back as it was, and is skipped as long as it is`(value: AMQPValue)
        throws
    {
        var writer = AMQPWriter()
        writer.value(value)
        #expect(try Self.decode(writer.bytes) == value)
        try writer.bytes.withUnsafeBytes { memory in
            var reader = AMQPReader(memory)
            try reader.skip()
            #expect(reader.isAtEnd == true)
        }
    }

    @Test(arguments: values) func `a value cut short is refused, never read past its end`(value: AMQPValue) {
        var writer = AMQPWriter()
        writer.value(value)
        for count in 0..<writer.bytes.count {
            #expect(throws: AMQPError.self) { try Self.decode(Array(writer.bytes[..<count])) }
        }
    }

    @Test func `small and large encodings mean the same`() throws {
        #expect(try Self.decode([0x52, 5]) == .uint(5))
        #expect(try Self.decode([0x70, 0, 0, 0, 5]) == .uint(5))
        #expect(try Self.decode([0xC0, 2, 1, 0x43]) == .list([.uint(0)]))
        #expect(try Self.decode([0xD0, 0, 0, 0, 5, 0, 0, 0, 1, 0x43]) == .list([.uint(0)]))
        #expect(try Self.decode([0x54, 0xFF]) == .int(-1))
        #expect(try Self.decode([0x55, 0xFF]) == .long(-1))
        #expect(try Self.decode([0x56, 1]) == .bool(true))
    }

    @Test(
        arguments: [
            [0x3F], [0xC0, 1, 5], [0xC0, 3, 1, 0x43, 0x43], [0xC1, 2, 1, 0x43], [0xE0, 2, 1, 0x50], [0xA1, 1, 0xFF],
            [0xD0, 0, 0, 0, 4, 0xFF, 0xFF, 0xFF, 0xFF], [0xF0, 0, 0, 0, 5, 0x7F, 0xFF, 0xFF, 0xFF, 0x41], [0x00],
            [0xD0],
        ] as [[UInt8]]) func `bytes that are no value are refused`(bytes: [UInt8])
    {
        #expect(throws: AMQPError.self) { try Self.decode(bytes) }
    }

    @Test func `nesting ends at the limit`() throws {
        let nested = { (depth: Int) in
            var value = AMQPValue.list([])
            for _ in 1..<depth { value = .list([value]) }
            var writer = AMQPWriter()
            writer.value(value)
            return writer.bytes
        }
        _ = try Self.decode(nested(AMQPLimits.nestingDepth))
        #expect(throws: AMQPError.self) { try Self.decode(nested(AMQPLimits.nestingDepth + 1)) }
    }

    @Test func `an array of nothing is bounded by its own limit`() throws {
        let array = { (count: UInt32) in
            [0xF0, 0, 0, 0, 5] + withUnsafeBytes(of: count.bigEndian) { Array($0) } + [0x41]
        }
        let edge = UInt32(AMQPLimits.emptyElementCount)
        #expect(try Self.decode(array(edge)).elements?.count == Int(edge))
        #expect(throws: AMQPError.self) { try Self.decode(array(edge + 1)) }
    }

    @Test func `a lock token is a GUID on the wire and a UUID in requests`() throws {
        let uuid = try #require(AMQPUUID("00112233-4455-6677-8899-aabbccddeeff"))
        let tag = AMQPTag(token: uuid)
        #expect(
            tag.bytes == [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF])
        #expect(AMQPUUID(guidBytes: tag.bytes) == uuid)
        #expect(uuid.description == "00112233-4455-6677-8899-aabbccddeeff")
    }

    @Test func `a message comes back with all its sections`() throws {
        var message = AMQPMessage(body: .data(Array("hello".utf8)))
        message.header.durable = true
        message.header.timeToLive = 5000
        message.messageAnnotations = [AMQPPair(symbol: "x", .int(1))]
        message.properties.messageID = .string("m")
        message.properties.groupID = "g"
        message.applicationProperties = [AMQPPair(string: "a", .double(1))]
        let bytes = message.encoded
        #expect(try AMQPMessage(bytes) == message)
        let sections = try bytes.withUnsafeBytes { memory in try MessageSections(memory) }
        #expect(sections.bodyKind == AMQPDescriptor.data)
        #expect(sections.bare.upperBound == bytes.count)
    }
}
