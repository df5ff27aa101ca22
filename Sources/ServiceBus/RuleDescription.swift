/// Rules as Azure's administration describes them.

/// Reads and writes `RuleDescription`.
enum RuleDescription {
    /// The rule a description asks for.
    ///
    /// - Parameter name: the name in the request's path; nil takes the description's own.
    static func rule(_ node: XMLNode, name: String?) throws(AtomDescription.Refusal) -> SubscriptionRule {
        var action: String?
        var actionParameters: [String: FilterValue] = [:]
        if let found = node["Action"], let text = found["SqlExpression"]?.text, !text.isEmpty {
            action = text
            actionParameters = try values(found["Parameters"])
        }
        let filter: SubscriptionRule.Filter
        if let found = node["Filter"] { filter = try self.filter(found) } else { filter = .all }
        let rule = SubscriptionRule(
            name: name ?? node["Name"]?.text ?? SubscriptionRule.everything.name, filter: filter, action: action,
            actionParameters: actionParameters)
        do throws(SubscriptionRule.Refusal) {
            _ = try rule.compiled()
        } catch {
            throw AtomDescription.Refusal(reason: error.reason)
        }
        return rule
    }

    private static func filter(_ node: XMLNode) throws(AtomDescription.Refusal) -> SubscriptionRule.Filter {
        let type = node.attributes["type"]?.split(separator: ":").last.map(String.init)
        switch type {
        case "TrueFilter": return .all
        case "FalseFilter": return .nothing
        case "SqlFilter", nil:
            guard let text = node["SqlExpression"]?.text, !text.isEmpty else {
                throw AtomDescription.Refusal(reason: "the filter has no SqlExpression")
            }
            return SubscriptionRule.condition(text, parameters: try values(node["Parameters"]))
        case "CorrelationFilter":
            var system: [String: String] = [:]
            for name in SubscriptionRule.correlationNames { system[name.lowercased()] = node[name]?.text }
            return .correlation(system: system, application: try values(node["Properties"]))
        case let other?:
            throw AtomDescription.Refusal(
                reason: "the filter's type is '\(other)'; it is SqlFilter, CorrelationFilter, TrueFilter or FalseFilter"
            )
        }
    }

    /// Typed values by key.
    private static func values(_ node: XMLNode?) throws(AtomDescription.Refusal) -> [String: FilterValue] {
        var values: [String: FilterValue] = [:]
        for pair in node?.children ?? [] where pair.name == "KeyValueOfstringanyType" {
            guard let key = pair["Key"]?.text, let value = pair["Value"] else { continue }
            let type = value.attributes["type"]?.split(separator: ":").last.map(String.init) ?? "string"
            let read: FilterValue? =
                switch type {
                case "string": .text(value.text)
                case "int", "long", "short", "byte": Int64(value.text).map { .integer($0) }
                case "double", "float", "decimal": Double(value.text).map { .number($0) }
                case "boolean": Bool(value.text.lowercased()).map { .truth($0) }
                case "dateTime": HTTPDate.milliseconds(value.text).map { .time($0) }
                case "duration": ISODuration.milliseconds(value.text).map { .span($0) }
                default: nil
                }
            guard let read else {
                throw AtomDescription.Refusal(reason: "'\(key)' is '\(value.text)', which is no \(type)")
            }
            values[key] = read
        }
        return values
    }

    /// An Atom entry for a rule of the subscription at `path`.
    static func entry(_ rule: SubscriptionRule, path: String, base: String) -> String {
        let sql = { (text: String, values: [String: FilterValue]) in
            let pairs = values.sorted { $0.key < $1.key }.map { AtomDescription.keyValue($0.key, $0.value) }.joined()
            return "<SqlExpression>\(xmlEscape(text))</SqlExpression><CompatibilityLevel>20</CompatibilityLevel>"
                + "<Parameters>\(pairs)</Parameters>"
        }
        let (type, body): (String, String)
        switch rule.filter {
        case .all: (type, body) = ("TrueFilter", sql("1=1", [:]))
        case .nothing: (type, body) = ("FalseFilter", sql("1=0", [:]))
        case .sql(let text, let parameters): (type, body) = ("SqlFilter", sql(text, parameters))
        case .correlation(let system, let application):
            let texts = SubscriptionRule.correlationNames.compactMap { name in
                system[name.lowercased()].map { "<\(name)>\(xmlEscape($0))</\(name)>" }
            }.joined()
            let pairs = application.sorted { $0.key < $1.key }.map { AtomDescription.keyValue($0.key, $0.value) }
            (type, body) = ("CorrelationFilter", texts + "<Properties>\(pairs.joined())</Properties>")
        }
        let action =
            rule.action.map { "<Action i:type=\"SqlRuleAction\">\(sql($0, rule.actionParameters))</Action>" }
            ?? "<Action i:type=\"EmptyRuleAction\"/>"
        let content =
            "<RuleDescription xmlns=\"\(AtomDescription.connect)\" xmlns:i=\"http://www.w3.org/2001/XMLSchema-instance\">"
            + "<Filter i:type=\"\(type)\">\(body)</Filter>\(action)<CreatedAt>\(HTTPDate.iso(rule.createdAt))</CreatedAt>"
            + "<Name>\(xmlEscape(rule.name))</Name></RuleDescription>"
        return AtomDescription.entry(
            name: xmlEscape("\(path)/rules/\(rule.name)"), title: xmlEscape(rule.name), base: base,
            published: rule.createdAt, updated: rule.createdAt, content: content)
    }
}
