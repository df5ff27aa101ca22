/// Topics: what is sent to one is put into each of its subscriptions whose rules let it through.
internal import AMQP
internal import EventLoops
internal import JSONText

extension Broker {
    /// Makes a topic, which holds nothing itself.
    func createTopic(_ name: String, _ settings: QueueSettings) {
        guard queue(named: name) == nil else { return }
        var settings = settings
        settings.isTopic = true
        createQueue(name, settings)
    }

    /// Makes a topic's subscription, or gives it other rules.
    func createSubscription(_ topic: String, _ subscription: EmulatorConfiguration.Subscription) {
        var settings = subscription.settings
        settings.rules = subscription.rules.isEmpty ? [.everything] : subscription.rules
        let name = "\(topic)/Subscriptions/\(subscription.name)"
        guard let existing = queue(named: name) else {
            createQueue(name, settings)
            return
        }
        settings.createdAt = existing.settings.createdAt
        settings.updatedAt = existing.settings.updatedAt
        if settings != existing.settings { update(existing, settings) }
    }

    /// The subscriptions of a topic.
    func subscriptions(of topic: MessageQueue) -> [MessageQueue] {
        let prefix = topic.name.lowercased() + "/subscriptions/"
        return queues.filter { $0.key.hasPrefix(prefix) }.map(\.value)
    }

    /// Puts a message into every subscription that takes it.
    func publish(_ record: MessageRecord, _ topic: MessageQueue) {
        let facts = MessageFacts(record)
        for subscription in subscriptions(of: topic) {
            for rule in subscription.settings.rules where rule.takes(facts) {
                var copy = rule.action.map { record.adding(facts.changes($0)) } ?? record
                put(&copy, subscription)
                // A message comes once, unless rules with actions make different ones of it.
                if rule.action == nil { break }
            }
        }
    }
}

/// What rules look at, decoded when first asked for.
struct MessageFacts {
    private let message: AMQPMessage

    init(_ record: MessageRecord) {
        var writer = AMQPWriter()
        record.write(MessageRecord.Delivery(), to: &writer)
        message = (try? AMQPMessage(writer.bytes)) ?? AMQPMessage()
    }

    /// A property of the message's own, by the name in rules, in lower case.
    func system(_ name: String) -> String? {
        let properties = message.properties
        switch name {
        case "messageid": return properties.messageID.text ?? properties.messageID.identifierText
        case "correlationid": return properties.correlationID.text ?? properties.correlationID.identifierText
        case "contenttype": return properties.contentType
        case "label", "subject": return properties.subject
        case "to": return properties.to
        case "replyto": return properties.replyTo
        case "sessionid": return properties.groupID
        case "replytosessionid": return properties.replyToGroupID
        default: return nil
        }
    }

    /// A property of the user's.
    func application(_ name: String) -> FilterValue {
        guard let value = message.applicationProperties.first(where: { $0.key.text == name })?.value else {
            return .unknown
        }
        switch value {
        case .bool(let truth): return .truth(truth)
        case .float(let number): return .number(Double(number))
        case .double(let number): return .number(number)
        default:
            if let text = value.text { return .text(text) }
            return value.integer.map { .number(Double($0)) } ?? .unknown
        }
    }

    func property(_ name: String) -> FilterValue {
        let lower = name.lowercased()
        if lower.hasPrefix("sys.") { return system(String(lower.dropFirst(4))).map { .text($0) } ?? .unknown }
        return application(lower.hasPrefix("user.") ? String(name.dropFirst(5)) : name)
    }

    /// What `SET name = literal` statements of an action put on the message.
    func changes(_ action: String) -> [AMQPPair] {
        action.split(separator: ";").compactMap { statement in
            let words = statement.split(separator: "=", maxSplits: 1)
            let name = words[0].split(separator: " ")
            guard words.count == 2, name.count == 2, name[0].uppercased() == "SET" else { return nil }
            let value = words[1].drop { $0 == " " }
            let text = value.last == "'" && value.first == "'" ? String(value.dropFirst().dropLast()) : nil
            let key = name[1].lowercased().hasPrefix("user.") ? String(name[1].dropFirst(5)) : String(name[1])
            return AMQPPair(
                string: key, text.map { .string($0) } ?? Int64(value).map { .long($0) } ?? .string(String(value)))
        }
    }
}

extension SubscriptionRule {
    func takes(_ facts: MessageFacts) -> Bool {
        switch filter {
        case .all: return true
        case .nothing: return false
        case .correlation(let system, let application):
            return system.allSatisfy { facts.system($0.key) == $0.value }
                && application.allSatisfy { facts.application($0.key) == .text($0.value) }
        case .sql(let text):
            return (try? SQLFilter(text))?.matches { facts.property($0) } ?? false
        }
    }

    /// As the store keeps it.
    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("name", name)
        if let action { writer.member("action", action) }
        switch filter {
        case .all: writer.member("kind", "all")
        case .nothing: writer.member("kind", "nothing")
        case .sql(let text):
            writer.member("kind", "sql")
            writer.member("sql", text)
        case .correlation(let system, let application):
            writer.member("kind", "correlation")
            for (key, values) in [("system", system), ("application", application)] {
                writer.name(key)
                writer.beginObject()
                for (name, value) in values.sorted(by: { $0.key < $1.key }) { writer.member(name, value) }
                writer.endObject()
            }
        }
        writer.endObject()
    }

    init(json: JSONValue) {
        let texts = { (key: String) in
            Dictionary((json[key]?.members ?? []).map { ($0.name, $0.value.string ?? "") }) { first, _ in first }
        }
        let filter: Filter =
            switch json["kind"]?.string {
            case "sql": .sql(json["sql"]?.string ?? "")
            case "correlation": .correlation(system: texts("system"), application: texts("application"))
            case "nothing": .nothing
            default: .all
            }
        self.init(name: json["name"]?.string ?? "", filter: filter, action: json["action"]?.string)
    }
}
