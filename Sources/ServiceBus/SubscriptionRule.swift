/// Rules of subscriptions: which of a topic's messages a subscription takes.
internal import ConfigurationFiles
internal import JSONText

/// A named filter, and perhaps an action on the messages it lets through.
public struct SubscriptionRule: Sendable, Equatable {
    /// What the message must have.
    public enum Filter: Sendable, Equatable {
        case all
        case nothing
        /// System properties by name in lower case, and application properties; all must be equal.
        case correlation(system: [String: String], application: [String: FilterValue])
        /// An SQL-like condition, with the values of its `@names`.
        case sql(String, parameters: [String: FilterValue])
    }

    public let name: String
    public let filter: Filter
    /// `SET` and `REMOVE` statements, with the values of its `@names`.
    public let action: String?
    public let actionParameters: [String: FilterValue]
    /// Milliseconds since 1970.
    public var createdAt: Int64 = 0

    /// Why a rule cannot be.
    struct Refusal: Error, Equatable {
        let reason: String
    }

    /// Characters of a rule's name.
    static let nameLimit = 50

    init(name: String, filter: Filter, action: String? = nil, actionParameters: [String: FilterValue] = [:]) {
        self.name = name
        self.filter = filter
        self.action = action
        self.actionParameters = actionParameters
    }

    /// The rule a subscription has when none is named.
    public static let everything = SubscriptionRule(name: "$Default", filter: .all)

    /// A filter for a condition; the two that everybody writes for all and nothing need no evaluation.
    static func condition(_ text: String, parameters: [String: FilterValue] = [:]) -> Filter {
        switch text.filter({ !$0.isWhitespace }) {
        case "1=1": .all
        case "1=0": .nothing
        default: .sql(text, parameters: parameters)
        }
    }

    /// Names of the properties a correlation filter may compare, as configuration and Atom write them.
    static let correlationNames = [
        "CorrelationId", "MessageId", "To", "ReplyTo", "Label", "SessionId", "ReplyToSessionId", "ContentType",
    ]

    /// Parses what is text in the rule.
    ///
    /// - Throws: why the name, the condition or the action is wrong.
    func compiled() throws(Refusal) -> CompiledRule {
        guard !name.isEmpty, name.count <= Self.nameLimit, !name.contains(where: { "/\\@?#*".contains($0) }) else {
            throw Refusal(
                reason: "'\(name)' is no name of a rule: 1 to \(Self.nameLimit) characters without / \\ @ ? # *")
        }
        var condition: SQLFilter?
        var statements: SQLAction?
        var text = ""
        do throws(SQLFilter.SyntaxError) {
            if case .sql(let expression, let parameters) = filter {
                text = expression
                condition = try SQLFilter(expression, parameters: parameters)
            }
            if let action {
                text = action
                statements = try SQLAction(action, parameters: actionParameters)
            }
        } catch {
            throw Refusal(reason: "rule '\(name)': \(error.reason), in '\(text)'")
        }
        return CompiledRule(filter: filter, condition: condition, action: statements)
    }

    // MARK: Configuration

    static func read(
        name: String, _ properties: JSONValue?, _ reader: inout ConfigurationReader
    ) -> Result<SubscriptionRule, Refusal> {
        let action = reader.section(properties, "Action").flatMap { reader.text($0, "SqlExpression") }
        let filter: Filter
        switch reader.text(properties, "FilterType")?.lowercased() {
        case "correlation", nil: filter = correlation(reader.section(properties, "CorrelationFilter"), &reader)
        case "sql":
            let text = reader.section(properties, "SqlFilter").flatMap { reader.text($0, "SqlExpression") }
            guard let text else { return .failure(Refusal(reason: "rule '\(name)' has no SqlExpression")) }
            filter = condition(text)
        case let other?:
            return .failure(Refusal(reason: "rule '\(name)': FilterType is '\(other)'; it is Correlation or Sql"))
        }
        let rule = SubscriptionRule(name: name, filter: filter, action: action.flatMap { $0.isEmpty ? nil : $0 })
        return Result { () throws(Refusal) in
            _ = try rule.compiled()
            return rule
        }
    }

    private static func correlation(_ section: JSONValue?, _ reader: inout ConfigurationReader) -> Filter {
        guard let section else { return .all }
        var system: [String: String] = [:]
        for key in correlationNames { system[key.lowercased()] = reader.text(section, key) }
        var application: [String: FilterValue] = [:]
        for member in reader.section(section, "Properties")?.members ?? [] {
            application[member.name] = FilterValue(json: member.value)
        }
        return .correlation(system: system, application: application)
    }
}

/// A rule whose condition and action have been parsed.
struct CompiledRule: Sendable {
    let filter: SubscriptionRule.Filter
    let condition: SQLFilter?
    let action: SQLAction?
}

// MARK: In the store

extension SubscriptionRule {
    /// As the store keeps it.
    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("name", name)
        writer.member("createdAt", createdAt)
        if let action { writer.member("action", action) }
        Self.write(actionParameters, "actionParameters", to: &writer)
        switch filter {
        case .all: writer.member("kind", "all")
        case .nothing: writer.member("kind", "nothing")
        case .sql(let text, let parameters):
            writer.member("kind", "sql")
            writer.member("sql", text)
            Self.write(parameters, "parameters", to: &writer)
        case .correlation(let system, let application):
            writer.member("kind", "correlation")
            writer.name("system")
            writer.beginObject()
            for (name, value) in system.sorted(by: { $0.key < $1.key }) { writer.member(name, value) }
            writer.endObject()
            Self.write(application, "application", to: &writer)
        }
        writer.endObject()
    }

    private static func write(_ values: [String: FilterValue], _ key: String, to writer: inout JSONWriter) {
        guard !values.isEmpty else { return }
        writer.name(key)
        writer.beginObject()
        for (name, value) in values.sorted(by: { $0.key < $1.key }) { value.write(name, to: &writer) }
        writer.endObject()
    }

    /// From the store.
    init(json: JSONValue) {
        let values = { (key: String) in
            Dictionary((json[key]?.members ?? []).map { ($0.name, FilterValue(json: $0.value)) }) { first, _ in first }
        }
        let system = (json["system"]?.members ?? []).map { ($0.name, $0.value.string ?? "") }
        let filter: Filter =
            switch json["kind"]?.string {
            case "sql": .sql(json["sql"]?.string ?? "", parameters: values("parameters"))
            case "correlation":
                .correlation(system: Dictionary(system) { first, _ in first }, application: values("application"))
            case "nothing": .nothing
            default: .all
            }
        self.init(
            name: json["name"]?.string ?? "", filter: filter, action: json["action"]?.string,
            actionParameters: values("actionParameters"))
        createdAt = json["createdAt"]?.integer.map { Int64($0) } ?? 0
    }
}

extension FilterValue {
    /// Texts, truths and whole numbers as they are; others as an object that tells their type.
    func write(_ name: String, to writer: inout JSONWriter) {
        let typed = { (writer: inout JSONWriter, type: String, value: Int64) in
            writer.name(name)
            writer.beginObject()
            writer.member(type, value)
            writer.endObject()
        }
        switch self {
        case .text(let text): writer.member(name, text)
        case .truth(let truth): writer.member(name, truth)
        case .integer(let value): writer.member(name, value)
        case .number(let value): typed(&writer, "double", Int64(bitPattern: value.bitPattern))
        case .time(let value): typed(&writer, "time", value)
        case .span(let value): typed(&writer, "span", value)
        case .uuid, .other, .unknown: break
        }
    }

    init(json: JSONValue) {
        if let text = json.string {
            self = .text(text)
        } else if let truth = json.bool {
            self = .truth(truth)
        } else if let bits = json["double"]?.integer {
            self = .number(Double(bitPattern: UInt64(bitPattern: Int64(bits))))
        } else if let time = json["time"]?.integer {
            self = .time(Int64(time))
        } else if let span = json["span"]?.integer {
            self = .span(Int64(span))
        } else if let whole = json.integer {
            self = .integer(Int64(whole))
        } else {
            self = json.double.map { .number($0) } ?? .unknown
        }
    }
}
