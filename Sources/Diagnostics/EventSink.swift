/// Where records go. Modules are handed an ``EventLog`` and never print.

/// Receives records.
public protocol EventSink: Sendable {
    func receive(_ event: HostEvent)
    /// Asked once for each invocation that went well, before its record is made; a sink may just count it.
    func wantsSuccess() -> Bool
    /// What host.json says is to be shown; a sink that shows nothing to a person leaves it.
    func use(_ levels: LogLevels)
}

extension EventSink {
    public func wantsSuccess() -> Bool { true }
    public func use(_ levels: LogLevels) {}
}

/// Hands each record to every sink that is listening.
public struct EventLog: Sendable {
    private let sinks: [any EventSink]

    public init(_ sinks: [any EventSink]) { self.sinks = sinks }

    /// A log that nobody reads, for tests.
    public static let discarding = EventLog([])

    public func callAsFunction(_ event: HostEvent) {
        for sink in sinks { sink.receive(event) }
    }

    /// The record of an invocation that went well, made only for sinks that want it: most do not, under load.
    @inline(__always)
    public func success(_ record: () -> InvocationRecord) {
        for sink in sinks where sink.wantsSuccess() { sink.receive(HostEvent(record())) }
    }

    /// Has every sink know what host.json says is to be shown.
    public func use(_ levels: LogLevels) {
        for sink in sinks { sink.use(levels) }
    }

    /// A plain log record.
    public func log(_ level: EventLevel, _ message: String, _ fields: [(String, HostEvent.Value)] = []) {
        self(HostEvent(.log, level, message, fields))
    }
}
