/// The configuration file of Microsoft's Service Bus emulator, accepted as it is.
public import ConfigurationFiles
internal import JSONText

/// Queues, topics and subscriptions the file asks for.
public struct EmulatorConfiguration {
    /// A queue and its properties.
    public struct Queue: Sendable, Equatable {
        public let name: String
        public let settings: QueueSettings
    }

    /// A subscription of a topic.
    public struct Subscription: Sendable, Equatable {
        public let name: String
        public let settings: QueueSettings
        public let rules: [SubscriptionRule]
    }

    /// A topic.
    public struct Topic: Sendable, Equatable {
        public let name: String
        public let settings: QueueSettings
        public let subscriptions: [Subscription]
    }

    public private(set) var queues: [Queue] = []
    public private(set) var topics: [Topic] = []
    /// What is wrong, or unusual, in the file.
    public private(set) var problems: [ConfigurationProblem] = []

    private var reader: ConfigurationReader

    /// Reads a file that has been parsed. Values outside the emulator's ranges and inside Azure's are taken.
    public init(file: ConfigurationFile) {
        reader = ConfigurationReader(file: file)
        let user = reader.section(file.root, "UserConfig")
        if user == nil {
            reader.report("AN2003", "'UserConfig' is missing: this is no configuration of the emulator", at: file.root)
        }
        let namespaces = reader.value(user, "Namespaces")?.elements ?? []
        for namespace in namespaces {
            for queue in reader.value(namespace, "Queues")?.elements ?? [] {
                guard let name = name(queue) else { continue }
                queues.append(Queue(name: name, settings: settings(reader.section(queue, "Properties"))))
            }
            for topic in reader.value(namespace, "Topics")?.elements ?? [] {
                guard let name = name(topic) else { continue }
                let settings = settings(reader.section(topic, "Properties"))
                let subscriptions = (reader.value(topic, "Subscriptions")?.elements ?? []).compactMap {
                    subscription($0)
                }
                topics.append(Topic(name: name, settings: settings, subscriptions: subscriptions))
            }
        }
        problems = reader.problems
    }

    private mutating func name(_ entity: JSONValue) -> String? {
        guard let name = reader.text(entity, "Name") else {
            reader.report("AN2003", "'Name' is missing", at: entity)
            return nil
        }
        guard EntityName.isValid(name) else {
            reader.report("AN2003", "'Name' is '\(name)'", at: reader.value(entity, "Name"), remedy: EntityName.rule)
            return nil
        }
        return name
    }

    private mutating func subscription(_ value: JSONValue) -> Subscription? {
        guard let name = name(value) else { return nil }
        let settings = settings(reader.section(value, "Properties"))
        var rules: [SubscriptionRule] = []
        for rule in reader.value(value, "Rules")?.elements ?? [] {
            guard let ruleName = reader.text(rule, "Name") else { continue }
            let properties = reader.section(rule, "Properties")
            switch SubscriptionRule.read(name: ruleName, properties, &reader) {
            case .success(let read): rules.append(read)
            case .failure(let refusal): reader.report("AN2003", refusal.reason, at: rule)
            }
        }
        return Subscription(name: name, settings: settings, rules: rules)
    }

    /// Properties with the emulator's own defaults.
    private mutating func settings(_ properties: JSONValue?) -> QueueSettings {
        var settings = QueueSettings()
        settings.maxDeliveryCount = 3
        settings.duplicateDetectionWindow = 20_000
        settings.defaultTimeToLive = 3_600_000
        guard let properties else { return settings }
        let day: Int64 = 86_400_000
        settings.lockDuration = duration(properties, "LockDuration", 5_000...300_000, settings.lockDuration)
        settings.defaultTimeToLive = duration(
            properties, "DefaultMessageTimeToLive", 1...QueueSettings.forever, settings.defaultTimeToLive)
        settings.duplicateDetectionWindow = duration(
            properties, "DuplicateDetectionHistoryTimeWindow", 5_000...7 * day, settings.duplicateDetectionWindow)
        settings.maxDeliveryCount = reader.integer(properties, "MaxDeliveryCount", in: 1...2000) ?? 3
        settings.deadLettersOnExpiration = reader.flag(properties, "DeadLetteringOnMessageExpiration") ?? false
        settings.requiresSession = reader.flag(properties, "RequiresSession") ?? false
        settings.requiresDuplicateDetection = reader.flag(properties, "RequiresDuplicateDetection") ?? false
        settings.forwardTo = reader.text(properties, "ForwardTo").flatMap { $0.isEmpty ? nil : $0 }
        settings.forwardDeadLettersTo = reader.text(properties, "ForwardDeadLetteredMessagesTo").flatMap {
            $0.isEmpty ? nil : $0
        }
        return settings
    }

    private mutating func duration(
        _ properties: JSONValue, _ key: String, _ range: ClosedRange<Int64>, _ fallback: Int64
    ) -> Int64 {
        guard let text = reader.text(properties, key) else { return fallback }
        guard let value = ISODuration.milliseconds(text), range.contains(value) else {
            let low = ISODuration.text(range.lowerBound)
            let high = ISODuration.text(range.upperBound)
            reader.report(
                "AN2003", "'\(key)' is '\(text)'; it must be a duration from \(low) to \(high)",
                at: reader.value(properties, key), remedy: "write it as PT1M, PT30S or P1D")
            return fallback
        }
        return value
    }
}

/// Names of queues, topics and subscriptions.
public enum EntityName {
    static let rule = "letters, digits, '.', '-', '_' and '/', with a letter or digit at both ends"

    /// Characters of a subscription's name.
    static let subscriptionLimit = 50

    /// The emulator's own pattern, and Azure's length.
    public static func isValid(_ name: String) -> Bool {
        guard let first = name.unicodeScalars.first, let last = name.unicodeScalars.last,
            name.utf8.count <= ServiceBusLimits.pathCount
        else { return false }
        let isPlain = { (scalar: UnicodeScalar) in
            ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || ("0"..."9").contains(scalar)
        }
        guard isPlain(first), isPlain(last) else { return false }
        return name.unicodeScalars.allSatisfy { isPlain($0) || ".-_/".unicodeScalars.contains($0) }
    }
}
