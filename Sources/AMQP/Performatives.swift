/// The nine performatives of the transport (specification part 2.7) and those of SASL (5.3.3).

/// Begins a connection.
public struct AMQPOpen: Equatable, Sendable {
    public var containerID: String
    public var hostname: String?
    public var maxFrameSize: UInt32 = .max
    public var channelMax: UInt16 = .max
    /// Milliseconds after which the sender of this performative gives up a silent peer.
    public var idleTimeout: UInt32?
    public var offeredCapabilities = AMQPValue.null
    public var desiredCapabilities = AMQPValue.null
    public var properties = AMQPValue.null

    public init(containerID: String, hostname: String? = nil) {
        self.containerID = containerID
        self.hostname = hostname
    }
}

/// Begins a session on a channel.
struct AMQPBegin: Equatable, Sendable {
    /// The other side's channel, in an answer.
    var remoteChannel: UInt16?
    var nextOutgoingID: UInt32 = 0
    var incomingWindow: UInt32
    var outgoingWindow: UInt32
    var handleMax: UInt32 = .max
}

/// Attaches a link.
public struct AMQPAttach: Equatable, Sendable {
    public var name: String
    public var handle: UInt32
    /// True when the sender of this performative is the link's receiver.
    public var isReceiver: Bool
    /// 0 unsettled, 1 settled, 2 mixed.
    public var senderSettleMode: UInt8 = 2
    /// 0 first, 1 second.
    public var receiverSettleMode: UInt8 = 0
    public var source: AMQPTerminus?
    public var target: AMQPTerminus?
    public var initialDeliveryCount: UInt32?
    public var maxMessageSize: UInt64?
    public var offeredCapabilities = AMQPValue.null
    public var desiredCapabilities = AMQPValue.null
    public var properties = AMQPValue.null
}

/// A source or a target, kept as it came so that an answer can repeat it exactly.
public struct AMQPTerminus: Equatable, Sendable {
    /// 0x28 source, 0x29 target, or a coordinator's.
    public var descriptor: UInt64
    public var fields: [AMQPValue]

    public init(descriptor: UInt64, fields: [AMQPValue]) {
        self.descriptor = descriptor
        self.fields = fields
    }

    /// A source with an address and, if any, filters.
    public static func source(_ address: String, filter: [AMQPPair] = []) -> AMQPTerminus {
        let fields: [AMQPValue] = [
            .string(address), .null, .null, .null, .null, .null, .null, filter.isEmpty ? .null : .map(filter), .null,
            .null, .null,
        ]
        return AMQPTerminus(descriptor: AMQPDescriptor.source, fields: fields)
    }

    /// A target with an address; `durable` asks brokers that create queues for a durable one.
    public static func target(_ address: String, durable: Bool = false) -> AMQPTerminus {
        AMQPTerminus(
            descriptor: AMQPDescriptor.target,
            fields: [.string(address), durable ? .uint(2) : .null, .null, .null, .null, .null, .null])
    }

    public var address: String? { fields.first?.text }
    /// A source's filters.
    public var filter: AMQPValue {
        get { field(7) }
        set {
            while fields.count < 8 { fields.append(.null) }
            fields[7] = newValue
        }
    }
    /// The outcomes a source understands; nil when it says nothing.
    public var outcomes: [String]? {
        let value = field(9)
        if let one = value.text { return [one] }
        return value.elements?.compactMap(\.text)
    }

    private func field(_ index: Int) -> AMQPValue { index < fields.count ? fields[index] : .null }
}

/// The state of windows and credit.
struct AMQPFlow: Equatable, Sendable {
    var nextIncomingID: UInt32?
    var incomingWindow: UInt32
    var nextOutgoingID: UInt32
    var outgoingWindow: UInt32
    /// Nil when it is about the session only.
    var handle: UInt32?
    var deliveryCount: UInt32?
    var linkCredit: UInt32?
    var available: UInt32?
    var drain = false
    var echo = false
}

/// A message or a part of one.
struct AMQPTransfer: Equatable, Sendable {
    var handle: UInt32
    var deliveryID: UInt32?
    var deliveryTag: AMQPTag?
    var messageFormat: UInt32?
    var settled: Bool?
    var more = false
    var state: DeliveryState?
    var aborted = false
}

/// A delivery tag of at most 32 bytes without an allocation for each delivery.
public struct AMQPTag: Equatable, Sendable {
    private var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    public let count: Int

    /// The tag's bytes; nil past the standard's 32.
    public init?(_ source: UnsafeRawBufferPointer) {
        guard source.count <= 32 else { return nil }
        count = source.count
        withUnsafeMutableBytes(of: &words) { $0.copyMemory(from: source) }
    }

    /// A counter as four bytes.
    public init(counter: UInt32) {
        count = 4
        withUnsafeMutableBytes(of: &words) { $0.storeBytes(of: counter.bigEndian, as: UInt32.self) }
    }

    /// A lock token as Service Bus sends it.
    public init(token: AMQPUUID) {
        count = 16
        let (high, low) = token.guidBytes
        words = (high.bigEndian, low.bigEndian, 0, 0)
    }

    public var bytes: [UInt8] { withUnsafeBytes(of: words) { Array($0.prefix(count)) } }

    func append(to cursor: inout AMQPCursor) {
        withUnsafeBytes(of: words) { cursor.bytes(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }

    public static func == (left: Self, right: Self) -> Bool { left.bytes == right.bytes }
}

/// The state of a range of deliveries.
struct AMQPDisposition: Equatable, Sendable {
    /// True when told by the receiver of the deliveries.
    var isReceiver: Bool
    var first: UInt32
    var last: UInt32
    var settled: Bool
    var state: DeliveryState?
}

/// Any performative.
enum Performative {
    case open(AMQPOpen)
    case begin(AMQPBegin)
    case attach(AMQPAttach)
    case flow(AMQPFlow)
    case transfer(AMQPTransfer)
    case disposition(AMQPDisposition)
    case detach(handle: UInt32, closed: Bool, error: AMQPError?)
    case end(AMQPError?)
    case close(AMQPError?)
}
