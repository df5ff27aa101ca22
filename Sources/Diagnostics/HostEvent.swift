/// What the host tells the world, one record at a time; the schema is `docs/reference/events.md`.

/// How much a record matters.
public enum EventLevel: Int, Sendable, Comparable, CaseIterable {
    case trace, debug, information, warning, error, critical

    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

    /// The word in the records and in host.json's `logLevel`.
    public var name: String {
        switch self {
        case .trace: "Trace"
        case .debug: "Debug"
        case .information: "Information"
        case .warning: "Warning"
        case .error: "Error"
        case .critical: "Critical"
        }
    }
}

/// The kinds of records. The names are those of the Functions CLI's v5 schema where it has them.
public enum EventKind: String, Sendable, CaseIterable {
    case log
    case hostStateChanged = "host_state_changed"
    case functionDiscovered = "function_discovered"
    case functionRemoved = "function_removed"
    case invocationCompleted = "invocation_completed"
    case workerStateChanged = "worker_state_changed"
    case cacheEvent = "cache_event"
    case configError = "config_error"
    case imageProgress = "image_progress"
    case coldStart = "cold_start"
    case summary
}

/// The parts of an invocation that are timed, in the order they happen.
public enum Stage: Int, Sendable, CaseIterable {
    case accept, auth, bind, cacheLookup, workerWait, score, cacheStore, output

    /// How many there are.
    public static let count = 8

    /// The name in `Server-Timing`, records and metrics.
    public var name: String {
        switch self {
        case .accept: "accept"
        case .auth: "auth"
        case .bind: "bind"
        case .cacheLookup: "cache_lookup"
        case .workerWait: "worker_wait"
        case .score: "score"
        case .cacheStore: "cache_store"
        case .output: "output"
        }
    }
}

/// How long each stage of one invocation took. Leaving one stage enters the next, so the stages add up
/// to the whole by construction.
public struct StageTimes: Sendable {
    private var nanoseconds: InlineArray<8, UInt64> = .init(repeating: 0)
    private var current: Stage
    private var since: UInt64
    /// When the first stage began, on the monotonic clock.
    public let start: UInt64

    /// Begins with `stage` at `now`.
    public init(entering stage: Stage, at now: UInt64) {
        current = stage
        since = now
        start = now
    }

    /// Charges the time since the last call to the stage that ends, and begins `stage`.
    public mutating func enter(_ stage: Stage, at now: UInt64) {
        nanoseconds[current.rawValue] += now &- since
        current = stage
        since = now
    }

    /// Charges `share` of the running stage's time so far to `stage` instead: used where the split is
    /// known only afterwards, for example from a worker's own clock.
    public mutating func attribute(_ share: UInt64, to stage: Stage, at now: UInt64) {
        let elapsed = now &- since
        let part = min(share, elapsed)
        nanoseconds[current.rawValue] += elapsed - part
        nanoseconds[stage.rawValue] += part
        since = now
    }

    /// Ends the running stage.
    public mutating func finish(at now: UInt64) { enter(current, at: now) }

    /// Nanoseconds spent in `stage`.
    public subscript(stage: Stage) -> UInt64 { nanoseconds[stage.rawValue] }

    /// Calls `body` with each stage that took time, in their order, without building a list of them.
    @inline(__always)
    public func forEachStage(_ body: (Stage, UInt64) -> Void) {
        for index in 0..<Stage.count where nanoseconds[index] > 0 {
            if let stage = Stage(rawValue: index) { body(stage, nanoseconds[index]) }
        }
    }

    /// Nanoseconds in all stages.
    public var total: UInt64 { since &- start }
}

/// What a cache did for one invocation.
public enum CacheResult: String, Sendable {
    case hit = "HIT"
    case miss = "MISS"
    case bypass = "BYPASS"
    /// Older than its time; a new result is being computed.
    case stale = "STALE"
}

/// The end of one invocation, as records, log lines and metrics need it.
public struct InvocationRecord: Sendable {
    public var id: InvocationID
    public var functionName: String
    public var trigger: String
    public var succeeded: Bool
    /// The HTTP status, or 0 for other triggers.
    public var status: Int
    public var cache: CacheResult?
    public var stages: StageTimes
    public var inputByteCount: Int
    public var outputByteCount: Int
    /// The error's code and message, when it failed.
    public var failure: String?
    /// Where its event came from: a blob's path, a queue; nil for HTTP.
    public var source: String?
    /// The invocation that caused it, when one of this host did.
    public var parent: String?
    /// How often the event has been tried.
    public var attempt = 1

    public init(
        id: InvocationID, functionName: String, trigger: String, succeeded: Bool, status: Int, cache: CacheResult?,
        stages: StageTimes, inputByteCount: Int, outputByteCount: Int, failure: String?
    ) {
        self.id = id
        self.functionName = functionName
        self.trigger = trigger
        self.succeeded = succeeded
        self.status = status
        self.cache = cache
        self.stages = stages
        self.inputByteCount = inputByteCount
        self.outputByteCount = outputByteCount
        self.failure = failure
    }
}

/// One record of the event stream.
public struct HostEvent: Sendable {
    /// What a field can hold.
    public enum Value: Sendable {
        case text(String)
        case integer(Int)
        case number(Double)
        case flag(Bool)
        case json([UInt8])
    }

    /// What happened.
    public enum Content: Sendable {
        case invocationCompleted(InvocationRecord)
        case record(message: String, fields: [(String, Value)])
    }

    public let kind: EventKind
    public let level: EventLevel
    public let content: Content

    /// Version of the record's shape; raised when a field changes its meaning.
    public static let schemaVersion = 1

    /// The end of an invocation.
    public init(_ record: InvocationRecord) {
        kind = .invocationCompleted
        level = record.succeeded ? .information : .error
        content = .invocationCompleted(record)
    }

    /// Anything else.
    public init(
        _ kind: EventKind, _ level: EventLevel = .information, _ message: String, _ fields: [(String, Value)] = []
    ) {
        self.kind = kind
        self.level = level
        content = .record(message: message, fields: fields)
    }
}
