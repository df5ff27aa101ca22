/// Rules of subscriptions: which of a topic's messages a subscription takes.
internal import ConfigurationFiles
internal import JSONText

/// A named filter, and perhaps an action on the messages it lets through.
public struct SubscriptionRule: Sendable, Equatable {
    /// What the message must have.
    public enum Filter: Sendable, Equatable {
        case all
        case nothing
        /// System properties by name, and application properties; all must be equal.
        case correlation(system: [String: String], application: [String: String])
        /// An SQL-like condition.
        case sql(String)
    }

    public let name: String
    public let filter: Filter
    /// `SET` and `REMOVE` statements on application properties.
    public let action: String?

    init(name: String, filter: Filter, action: String?) {
        self.name = name
        self.filter = filter
        self.action = action
    }

    /// The rule a subscription has when none is named.
    public static let everything = SubscriptionRule(name: "$Default", filter: .all, action: nil)

    struct Refusal: Error {
        let reason: String
    }

    private static let systemNames = [
        "ContentType", "CorrelationId", "Label", "MessageId", "ReplyTo", "ReplyToSessionId", "SessionId", "To",
    ]

    static func read(
        name: String, _ properties: JSONValue?, _ reader: inout ConfigurationReader
    ) -> Result<SubscriptionRule, Refusal> {
        let action = reader.section(properties, "Action").flatMap { reader.text($0, "SqlExpression") }
        switch reader.text(properties, "FilterType")?.lowercased() {
        case "correlation", nil:
            guard let filter = reader.section(properties, "CorrelationFilter") else {
                return .success(SubscriptionRule(name: name, filter: .all, action: action))
            }
            var system: [String: String] = [:]
            for key in systemNames { system[key.lowercased()] = reader.text(filter, key) }
            var application: [String: String] = [:]
            for member in reader.section(filter, "Properties")?.members ?? [] {
                application[member.name] = member.value.string
            }
            return .success(
                SubscriptionRule(
                    name: name, filter: .correlation(system: system, application: application), action: action))
        case "sql":
            let text = reader.section(properties, "SqlFilter").flatMap { reader.text($0, "SqlExpression") }
            guard let text else { return .failure(Refusal(reason: "rule '\(name)' has no SqlExpression")) }
            do throws(SQLFilter.SyntaxError) {
                _ = try SQLFilter(text)
            } catch {
                return .failure(Refusal(reason: "rule '\(name)': \(error.reason), in '\(text)'"))
            }
            return .success(SubscriptionRule(name: name, filter: .sql(text), action: action))
        case let other?:
            return .failure(Refusal(reason: "rule '\(name)': FilterType is '\(other)'; it is Correlation or Sql"))
        }
    }
}
