/// Where records go. Modules are handed an ``EventLog`` and never print.

/// Receives records.
public protocol EventSink: Sendable {
    func receive(_ event: HostEvent)
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

    /// A plain log record.
    public func log(_ level: EventLevel, _ message: String, _ fields: [(String, HostEvent.Value)] = []) {
        self(HostEvent(.log, level, message, fields))
    }
}
