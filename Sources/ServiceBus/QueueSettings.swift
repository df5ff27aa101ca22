/// What a queue is configured to do; names and defaults are those of Azure Service Bus.
internal import JSONText

/// Properties of a queue. Times are milliseconds; ``forever`` stands for none.
public struct QueueSettings: Equatable, Sendable {
    /// How long a message taken with peek-lock is kept from others: 5 s to 5 min, default 1 min.
    public var lockDuration: Int64 = 60_000
    /// Failed deliveries after which a message is dead-lettered: 1 to 2 000, default 10.
    public var maxDeliveryCount = 10
    public var requiresSession = false
    public var requiresDuplicateDetection = false
    /// How long message ids are remembered: 5 s to 7 days, default 10 min.
    public var duplicateDetectionWindow: Int64 = 600_000
    /// The longest time to live.
    public var defaultTimeToLive = QueueSettings.forever
    public var deadLettersOnExpiration = false
    /// Messages go to this queue instead.
    public var forwardTo: String?
    /// Dead letters go to this queue instead.
    public var forwardDeadLettersTo: String?
    public var maxSizeInMegabytes = 1024
    public var userMetadata: String?
    public var status = Status.active
    public var autoDeleteOnIdle = QueueSettings.forever
    /// A topic holds nothing itself but what is scheduled; see ``rules`` for its subscriptions.
    public var isTopic = false
    /// Which of its topic's messages a subscription takes.
    public var rules: [SubscriptionRule] = []
    public var createdAt: Int64 = 0
    public var updatedAt: Int64 = 0

    /// Whether an entity takes and gives messages.
    public enum Status: String, Sendable {
        case active = "Active"
        case disabled = "Disabled"
        case sendDisabled = "SendDisabled"
        case receiveDisabled = "ReceiveDisabled"

        var refusesSends: Bool { self == .disabled || self == .sendDisabled }
        var refusesReceives: Bool { self == .disabled || self == .receiveDisabled }
    }

    /// .NET's longest time span, in milliseconds.
    public static let forever: Int64 = 922_337_203_685_477

    public init() {}

    /// As the store keeps it.
    var json: [UInt8] {
        jsonObject { writer in
            writer.member("lockDuration", lockDuration)
            writer.member("maxDeliveryCount", maxDeliveryCount)
            writer.member("requiresSession", requiresSession)
            writer.member("requiresDuplicateDetection", requiresDuplicateDetection)
            writer.member("duplicateDetectionWindow", duplicateDetectionWindow)
            writer.member("defaultTimeToLive", defaultTimeToLive)
            writer.member("deadLettersOnExpiration", deadLettersOnExpiration)
            if let forwardTo { writer.member("forwardTo", forwardTo) }
            if let forwardDeadLettersTo { writer.member("forwardDeadLettersTo", forwardDeadLettersTo) }
            writer.member("maxSizeInMegabytes", maxSizeInMegabytes)
            if let userMetadata { writer.member("userMetadata", userMetadata) }
            writer.member("status", status.rawValue)
            writer.member("autoDeleteOnIdle", autoDeleteOnIdle)
            writer.member("createdAt", createdAt)
            writer.member("updatedAt", updatedAt)
            if isTopic { writer.member("isTopic", true) }
            guard !rules.isEmpty else { return }
            writer.name("rules")
            writer.beginArray()
            for rule in rules { rule.write(to: &writer) }
            writer.endArray()
        }
    }

    /// From the store; what a newer or older version does not have keeps its default.
    init(json: JSONValue) {
        let number = { (name: String, fallback: Int64) in json[name]?.integer.map { Int64($0) } ?? fallback }
        lockDuration = number("lockDuration", lockDuration)
        maxDeliveryCount = Int(number("maxDeliveryCount", 10))
        requiresSession = json["requiresSession"]?.bool ?? false
        requiresDuplicateDetection = json["requiresDuplicateDetection"]?.bool ?? false
        duplicateDetectionWindow = number("duplicateDetectionWindow", duplicateDetectionWindow)
        defaultTimeToLive = number("defaultTimeToLive", Self.forever)
        deadLettersOnExpiration = json["deadLettersOnExpiration"]?.bool ?? false
        forwardTo = json["forwardTo"]?.string
        forwardDeadLettersTo = json["forwardDeadLettersTo"]?.string
        maxSizeInMegabytes = Int(number("maxSizeInMegabytes", 1024))
        userMetadata = json["userMetadata"]?.string
        status = json["status"]?.string.flatMap(Status.init) ?? .active
        autoDeleteOnIdle = number("autoDeleteOnIdle", Self.forever)
        createdAt = number("createdAt", 0)
        updatedAt = number("updatedAt", 0)
        isTopic = json["isTopic"]?.bool ?? false
        rules = (json["rules"]?.elements ?? []).map { SubscriptionRule(json: $0) }
    }
}

/// Limits of the broker, in the words of Azure's quotas. Each has a test at its edge and past it.
public enum ServiceBusLimits {
    /// Bytes of one message with its properties.
    public static let messageByteCount = 262_144
    /// Bytes of a message id, session id or partition key.
    public static let identifierByteCount = 128
    /// Bytes of a session's state.
    public static let sessionStateByteCount = 262_144
    /// Characters of a queue's path.
    public static let pathCount = 260
    /// How many queues a message may be forwarded through.
    public static let forwardingHops = 4
    /// Messages one management request may peek, or take by number.
    public static let peekCount = 1_000
    /// Messages one management request may delete.
    public static let deletionCount = 4_000
    /// Rules of one subscription.
    public static let ruleCount = 2_000
    /// Bytes of waiting messages kept in memory; further ones are read from disk.
    public static let cachedByteCount = 64 << 20
    /// Bytes accepted and not on disk at which connections are not read until the disk has caught up.
    public static let uncommittedByteCount = 64 << 20
    /// Queues, topics and subscriptions.
    public static let entityCount = 10_000
}
