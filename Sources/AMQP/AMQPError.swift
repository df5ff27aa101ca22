/// What goes wrong in AMQP, in the protocol's own words: a condition, a description, a map of details.

/// An error as peers exchange it, and as the decoder reports malformed bytes.
public struct AMQPError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A symbol such as `amqp:not-found`.
    public var condition: String
    public var text: String
    /// Details; never left out on the wire, because some clients need the map.
    public var info: [AMQPPair]

    public init(_ condition: String, _ text: String, info: [AMQPPair] = []) {
        self.condition = condition
        self.text = text
        self.info = info
    }

    public var description: String { text.isEmpty ? condition : "\(condition): \(text)" }

    /// Bytes that are no AMQP.
    static func malformed(_ text: String) -> AMQPError { AMQPError("amqp:decode-error", text) }
    /// A frame that cannot be one.
    static func framing(_ text: String) -> AMQPError { AMQPError("amqp:connection:framing-error", text) }
    /// Right bytes at the wrong time.
    static func illegal(_ text: String) -> AMQPError { AMQPError("amqp:illegal-state", text) }
}

/// Bounds on what a peer can make us hold. Each has a test at its edge and past it.
public struct AMQPLimits: Sendable {
    /// Bytes of one incoming frame, announced in `open`; Service Bus says 262 144, and so does pyamqp fit in.
    public var frameByteCount: UInt32 = 262_144
    /// How deep lists, maps, arrays and descriptions may nest.
    public static let nestingDepth = 32
    /// Elements of an array whose elements take no bytes, where the frame's size sets no bound.
    public static let emptyElementCount = 65_536
    /// The highest channel number a peer may use.
    public var channelMax: UInt16 = 4_999
    /// The highest link handle a peer may use in a session.
    public var handleMax: UInt32 = 4_999
    /// Bytes of one message over all its frames.
    public var messageByteCount = 1_048_576
    /// Transfer frames a peer may send ahead per session.
    public var incomingWindow: UInt32 = 65_536
    /// What we say about idle connections, in milliseconds; a peer sends something twice in this time.
    public var idleTimeoutMilliseconds: UInt32? = 240_000
    /// Bytes waiting for a peer that does not read; deliveries stop above this.
    public static let outputByteCount = 4 << 20

    public init() {}
}
