/// Which records are shown, as host.json's `logging.logLevel` tells it.

/// Levels by category. The longest name that a category begins with decides, without regard to case, and `default`
/// where none does: the rule of .NET's logging, which the Functions host has.
public struct LogLevels: Sendable, Equatable {
    private struct Rule: Sendable, Equatable {
        var prefix: String
        /// nil shows nothing.
        var minimum: EventLevel?

        func shows(_ level: EventLevel) -> Bool { minimum.map { level >= $0 } ?? false }
    }

    /// The longest first; `default` is the empty prefix.
    private var rules: [Rule] = []

    public init() {}

    /// Adds a rule; nil is `None`.
    public mutating func set(_ name: String, _ minimum: EventLevel?) {
        let prefix = name.lowercased()
        rules.append(Rule(prefix: prefix == "default" ? "" : prefix, minimum: minimum))
        rules.sort { $0.prefix.utf8.count > $1.prefix.utf8.count }
    }

    /// Whether a record is shown; nil when no rule is about it.
    public func shows(_ level: EventLevel, in category: @autoclosure () -> String) -> Bool? {
        if rules.isEmpty { return nil }
        let category = category().lowercased()
        return rules.first { category.hasPrefix($0.prefix) }?.shows(level)
    }

    /// Whether a record of `level` can be shown in any category that begins with `prefix`; nil when no rule is about it.
    public func mayShow(_ level: EventLevel, below prefix: String) -> Bool? {
        let isBelow = rules.contains { $0.prefix.hasPrefix(prefix.lowercased()) && $0.shows(level) }
        return isBelow ? true : shows(level, in: prefix)
    }
}

extension HostEvent {
    /// The category in the Functions host's terms: `Function.<name>` for its runs, `Function.<name>.User` for what its
    /// script prints and logs, `Host.Startup` and `Host.General` for the rest.
    public var category: String {
        switch content {
        case .invocationCompleted(let record): return "Function.\(record.functionName)"
        case .record(_, let fields):
            for case ("function", .text(let name)) in fields {
                return "Function.\(name)" + (fields.contains { $0.0 == "source" } ? ".User" : "")
            }
            return kind == .hostStateChanged ? "Host.Startup" : "Host.General"
        }
    }
}
