/// Topics and subscriptions as Azure's administration describes them.
internal import EventLoops

/// Reads and writes `TopicDescription`.
enum TopicDescription {
    /// The settings a description asks for, over `old` ones.
    static func settings(_ node: XMLNode, over old: QueueSettings) throws(AtomDescription.Refusal) -> QueueSettings {
        var settings = old
        settings.isTopic = true
        settings.defaultTimeToLive =
            try AtomDescription.duration(node, "DefaultMessageTimeToLive", 1...QueueSettings.forever)
            ?? old.defaultTimeToLive
        settings.duplicateDetectionWindow =
            try AtomDescription.duration(node, "DuplicateDetectionHistoryTimeWindow", 5_000...604_800_000)
            ?? old.duplicateDetectionWindow
        settings.autoDeleteOnIdle =
            try AtomDescription.duration(node, "AutoDeleteOnIdle", 300_000...QueueSettings.forever)
            ?? old.autoDeleteOnIdle
        settings.requiresDuplicateDetection =
            try AtomDescription.flag(node, "RequiresDuplicateDetection") ?? old.requiresDuplicateDetection
        settings.maxSizeInMegabytes =
            try AtomDescription.number(node, "MaxSizeInMegabytes", 1...81_920) ?? old.maxSizeInMegabytes
        if let text = node["UserMetadata"]?.text { settings.userMetadata = text.isEmpty ? nil : text }
        settings.status = try AtomDescription.status(node) ?? old.status
        return settings
    }

    /// An Atom entry for a topic.
    @EventLoop
    static func entry(_ topic: MessageQueue, base: String) -> String {
        let settings = topic.settings
        var fields: [(name: String, content: String)] = [
            ("DefaultMessageTimeToLive", ISODuration.text(settings.defaultTimeToLive)),
            ("MaxSizeInMegabytes", "\(settings.maxSizeInMegabytes)"),
            ("RequiresDuplicateDetection", "\(settings.requiresDuplicateDetection)"),
            ("DuplicateDetectionHistoryTimeWindow", ISODuration.text(settings.duplicateDetectionWindow)),
            ("EnableBatchedOperations", "true"),
            ("SizeInBytes", "\(topic.subscriptions.reduce(topic.byteCount) { $0 + $1.byteCount })"),
            ("FilteringMessagesBeforePublishing", "false"), ("IsAnonymousAccessible", "false"),
            ("AuthorizationRules", ""), ("Status", settings.status.rawValue),
        ]
        if let text = settings.userMetadata { fields.append(("UserMetadata", xmlEscape(text))) }
        fields += [
            ("CreatedAt", HTTPDate.iso(settings.createdAt)), ("UpdatedAt", HTTPDate.iso(settings.updatedAt)),
            ("AccessedAt", HTTPDate.iso(max(topic.accessedAt, settings.createdAt))), ("SupportOrdering", "true"),
            ("CountDetails", AtomDescription.countDetails(topic)),
            ("SubscriptionCount", "\(topic.subscriptions.count)"),
            ("AutoDeleteOnIdle", ISODuration.text(settings.autoDeleteOnIdle)), ("EnablePartitioning", "false"),
            ("EntityAvailabilityStatus", "Available"), ("EnableSubscriptionPartitioning", "false"),
            ("EnableExpress", "false"), ("MaxMessageSizeInKilobytes", "256"),
        ]
        return AtomDescription.entry(
            name: xmlEscape(topic.name), base: base, published: settings.createdAt, updated: settings.updatedAt,
            content: AtomDescription.element("TopicDescription", fields))
    }
}

/// Reads and writes `SubscriptionDescription`.
enum SubscriptionDescription {
    /// The settings a description asks for, over `old` ones.
    static func settings(_ node: XMLNode, over old: QueueSettings) throws(AtomDescription.Refusal) -> QueueSettings {
        var settings = try QueueDescription.settings(node, over: old)
        settings.isTopic = false
        guard old.rules.isEmpty, old.createdAt == 0 else { return settings }
        if let rule = node["DefaultRuleDescription"] {
            settings.rules = [try RuleDescription.rule(rule, name: nil)]
        } else {
            settings.rules = [.everything]
        }
        return settings
    }

    /// An Atom entry for a subscription.
    @EventLoop
    static func entry(_ subscription: MessageQueue, base: String) -> String {
        let settings = subscription.settings
        var fields: [(name: String, content: String)] = [
            ("LockDuration", ISODuration.text(settings.lockDuration)),
            ("RequiresSession", "\(settings.requiresSession)"),
            ("DefaultMessageTimeToLive", ISODuration.text(settings.defaultTimeToLive)),
            ("DeadLetteringOnMessageExpiration", "\(settings.deadLettersOnExpiration)"),
            ("DeadLetteringOnFilterEvaluationExceptions", "false"), ("MessageCount", "\(subscription.totalCount)"),
            ("MaxDeliveryCount", "\(settings.maxDeliveryCount)"), ("EnableBatchedOperations", "true"),
            ("Status", settings.status.rawValue),
        ]
        if let target = settings.forwardTo { fields.append(("ForwardTo", "sb://localhost/\(xmlEscape(target))")) }
        fields += [
            ("CreatedAt", HTTPDate.iso(settings.createdAt)), ("UpdatedAt", HTTPDate.iso(settings.updatedAt)),
            ("AccessedAt", HTTPDate.iso(max(subscription.accessedAt, settings.createdAt))),
            ("CountDetails", AtomDescription.countDetails(subscription)),
        ]
        if let text = settings.userMetadata { fields.append(("UserMetadata", xmlEscape(text))) }
        if let target = settings.forwardDeadLettersTo {
            fields.append(("ForwardDeadLetteredMessagesTo", "sb://localhost/\(xmlEscape(target))"))
        }
        fields += [
            ("AutoDeleteOnIdle", ISODuration.text(settings.autoDeleteOnIdle)),
            ("EntityAvailabilityStatus", "Available"),
        ]
        return AtomDescription.entry(
            name: xmlEscape(subscription.name), title: xmlEscape(subscription.shortName), base: base,
            published: settings.createdAt, updated: settings.updatedAt,
            content: AtomDescription.element("SubscriptionDescription", fields))
    }
}

extension AtomDescription {
    /// How many messages of an entity are where.
    @EventLoop
    static func countDetails(_ queue: MessageQueue) -> String {
        [
            ("ActiveMessageCount", queue.activeCount), ("DeadLetterMessageCount", queue.deadLetters?.activeCount ?? 0),
            ("ScheduledMessageCount", queue.scheduledCount), ("TransferMessageCount", 0),
            ("TransferDeadLetterMessageCount", queue.transferDeadLetters?.activeCount ?? 0),
        ].map { "<d2p1:\($0.0) xmlns:d2p1=\"\(counts)\">\($0.1)</d2p1:\($0.0)>" }.joined()
    }
}
