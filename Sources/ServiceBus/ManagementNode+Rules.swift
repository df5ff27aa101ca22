/// Rules of a subscription over AMQP, as the rule managers of the SDKs ask for them.
internal import AMQP
internal import EventLoops

extension ManagementNode {
    func addRule(_ body: AMQPValue, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        guard let name = body["rule-name"]?.text, let description = body["rule-description"] else {
            return done(.arguments("rule-name and rule-description are expected"))
        }
        let filter: SubscriptionRule.Filter
        if let sql = description["sql-filter"] {
            guard let text = sql["expression"]?.text else { return done(.arguments("sql-filter has no expression")) }
            filter = SubscriptionRule.condition(text)
        } else if let correlation = description["correlation-filter"] {
            var system: [String: String] = [:]
            for (key, property) in Self.correlationKeys { system[property] = correlation[key]?.text }
            var application: [String: FilterValue] = [:]
            for pair in correlation["properties"]?.pairs ?? [] {
                guard let key = pair.key.text else { continue }
                application[key] = FilterValue(pair.value)
            }
            filter = .correlation(system: system, application: application)
        } else {
            return done(.arguments("rule-description has neither sql-filter nor correlation-filter"))
        }
        let action = description["sql-rule-action"]?["expression"]?.text
        let rule = SubscriptionRule(name: name, filter: filter, action: action)
        if let error = broker.put(rule, to: queue, then: finishing(done)) { return done(.refusal(error)) }
        broker.wake()
    }

    func removeRule(_ body: AMQPValue, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        guard let name = body["rule-name"]?.text else { return done(.arguments("rule-name is expected")) }
        if let error = broker.removeRule(name, from: queue, then: finishing(done)) { return done(.refusal(error)) }
        broker.wake()
    }

    private func finishing(
        _ done: @escaping @EventLoop (ManagementAnswer) -> Void
    ) -> @EventLoop (SystemError?) -> Void {
        { failure in done(failure == nil ? ManagementAnswer() : .failure(500, .storeFull)) }
    }

    func rules(_ body: AMQPValue) -> ManagementAnswer {
        let skip = Int(max(0, body["skip"]?.integer ?? 0))
        let top = Int(min(max(1, body["top"]?.integer ?? 100), Int64(ServiceBusLimits.ruleCount)))
        let page = queue.settings.rules.dropFirst(skip).prefix(top)
        guard !page.isEmpty else { return .empty(AMQPError("com.microsoft:no-matching-rule", "no further rules")) }
        return ManagementAnswer(body: [
            AMQPPair(
                string: "rules",
                .list(page.map { .map([AMQPPair(string: "rule-description", Self.description($0))]) }))
        ])
    }

    private static let correlationKeys = [
        ("correlation-id", "correlationid"), ("message-id", "messageid"), ("to", "to"), ("reply-to", "replyto"),
        ("label", "label"), ("session-id", "sessionid"), ("reply-to-session-id", "replytosessionid"),
        ("content-type", "contenttype"),
    ]

    /// The described lists of Azure's "AMQP 1.0 request/response operations"; its codes of filters have a digit less.
    private static func description(_ rule: SubscriptionRule) -> AMQPValue {
        let described = { (code: UInt64, fields: [AMQPValue]) in AMQPValue.described(.ulong(code), .list(fields)) }
        let filter: AMQPValue
        switch rule.filter {
        case .all: filter = described(0x13_7000_0007, [])
        case .nothing: filter = described(0x13_7000_0008, [])
        case .sql(let text, _): filter = described(0x13_7000_0006, [.string(text), .int(20)])
        case .correlation(let system, let application):
            let texts = correlationKeys.map { system[$0.1].map { AMQPValue.string($0) } ?? .null }
            let properties = application.sorted { $0.key < $1.key }.map { AMQPPair(string: $0.key, $0.value.amqp) }
            filter = described(0x13_7000_0009, texts + [.map(properties)])
        }
        let action =
            rule.action.map { described(0x137_0000_0006, [.string($0), .int(20)]) } ?? described(0x137_0000_0005, [])
        return described(0x137_0000_0004, [filter, action, .string(rule.name), .timestamp(rule.createdAt)])
    }
}

extension ManagementAnswer {
    /// An error with the status that SDKs expect beside its condition.
    static func refusal(_ error: AMQPError) -> ManagementAnswer {
        switch error.condition {
        case "amqp:not-found": failure(404, error)
        case "com.microsoft:entity-already-exists": failure(409, error)
        case "amqp:resource-limit-exceeded": failure(403, error)
        default: failure(400, error)
        }
    }
}
