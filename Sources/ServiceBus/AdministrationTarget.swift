/// What a request to the administration is about, by its path.

/// An entity, or a list of them.
enum AdministrationTarget: Equatable {
    case namespace
    case queues
    case topics
    /// A queue or a topic.
    case entity(String)
    case subscriptions(topic: String)
    case subscription(topic: String, String)
    case rules(topic: String, subscription: String)
    case rule(topic: String, subscription: String, String)

    /// Reads a path without slashes at its ends; nil when it names nothing.
    init?(_ path: String) {
        switch path.lowercased() {
        case "": return nil
        case "$resources/queues":
            self = .queues
            return
        case "$resources/topics":
            self = .topics
            return
        case "$namespaceinfo":
            self = .namespace
            return
        default: break
        }
        let parts = path.split(separator: "/").map(String.init)
        guard let at = parts.lastIndex(where: { $0.lowercased() == "subscriptions" }), at > 0 else {
            self = .entity(path)
            return
        }
        let topic = parts[..<at].joined(separator: "/")
        let rest = parts[(at + 1)...].map { $0 }
        switch rest.count {
        case 0: self = .subscriptions(topic: topic)
        case 1: self = .subscription(topic: topic, rest[0])
        case 2 where rest[1].lowercased() == "rules": self = .rules(topic: topic, subscription: rest[0])
        case 3 where rest[1].lowercased() == "rules": self = .rule(topic: topic, subscription: rest[0], rest[2])
        default: return nil
        }
    }

    /// The path it was read from, in the usual case.
    var path: String {
        switch self {
        case .namespace: "$namespaceinfo"
        case .queues: "$Resources/queues"
        case .topics: "$Resources/topics"
        case .entity(let name): name
        case .subscriptions(let topic): "\(topic)/Subscriptions"
        case .subscription(let topic, let name): "\(topic)/Subscriptions/\(name)"
        case .rules(let topic, let subscription): "\(topic)/Subscriptions/\(subscription)/Rules"
        case .rule(let topic, let subscription, let name): "\(topic)/Subscriptions/\(subscription)/Rules/\(name)"
        }
    }

    /// The title of its list.
    var title: String {
        switch self {
        case .queues: "Queues"
        case .topics: "Topics"
        case .subscriptions: "Subscriptions"
        case .rules: "Rules"
        default: ""
        }
    }

    /// Whether what it names may be created; a rule's name has its own check.
    var hasValidNames: Bool {
        switch self {
        case .entity(let name): EntityName.isValid(name)
        case .subscription(let topic, let name), .rule(let topic, let name, _):
            EntityName.isValid(topic) && EntityName.isValid(name) && name.count <= EntityName.subscriptionLimit
        default: true
        }
    }
}
