/// Queues as Azure's administration describes them: Atom entries with a `QueueDescription`.
internal import EventLoops

/// Reads and writes descriptions; the order of elements matters to some clients.
enum QueueDescription {
    typealias Refusal = AtomDescription.Refusal

    // MARK: Reading

    /// The settings a description asks for, over `old` ones.
    static func settings(_ node: XMLNode, over old: QueueSettings) throws(Refusal) -> QueueSettings {
        var settings = old
        settings.lockDuration = try AtomDescription.duration(node, "LockDuration", 5_000...300_000) ?? old.lockDuration
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
        settings.requiresSession = try AtomDescription.flag(node, "RequiresSession") ?? old.requiresSession
        settings.deadLettersOnExpiration =
            try AtomDescription.flag(node, "DeadLetteringOnMessageExpiration") ?? old.deadLettersOnExpiration
        settings.maxDeliveryCount =
            try AtomDescription.number(node, "MaxDeliveryCount", 1...2000) ?? old.maxDeliveryCount
        settings.maxSizeInMegabytes =
            try AtomDescription.number(node, "MaxSizeInMegabytes", 1...81_920) ?? old.maxSizeInMegabytes
        if let text = node["ForwardTo"]?.text { settings.forwardTo = AtomDescription.entity(text) }
        if let text = node["ForwardDeadLetteredMessagesTo"]?.text {
            settings.forwardDeadLettersTo = AtomDescription.entity(text)
        }
        if let text = node["UserMetadata"]?.text { settings.userMetadata = text.isEmpty ? nil : text }
        settings.status = try AtomDescription.status(node) ?? old.status
        return settings
    }

    // MARK: Writing

    /// An Atom entry for a queue.
    @EventLoop
    static func entry(_ queue: MessageQueue, base: String) -> String {
        let settings = queue.settings
        var fields: [(String, String)] = [
            ("LockDuration", ISODuration.text(settings.lockDuration)),
            ("MaxSizeInMegabytes", "\(settings.maxSizeInMegabytes)"),
            ("RequiresDuplicateDetection", "\(settings.requiresDuplicateDetection)"),
            ("RequiresSession", "\(settings.requiresSession)"),
            ("DefaultMessageTimeToLive", ISODuration.text(settings.defaultTimeToLive)),
            ("DeadLetteringOnMessageExpiration", "\(settings.deadLettersOnExpiration)"),
            ("DuplicateDetectionHistoryTimeWindow", ISODuration.text(settings.duplicateDetectionWindow)),
            ("MaxDeliveryCount", "\(settings.maxDeliveryCount)"), ("EnableBatchedOperations", "true"),
            ("SizeInBytes", "\(queue.byteCount)"), ("MessageCount", "\(queue.totalCount)"),
            ("IsAnonymousAccessible", "false"), ("AuthorizationRules", ""), ("Status", settings.status.rawValue),
        ]
        if let target = settings.forwardTo { fields.append(("ForwardTo", "sb://localhost/\(xmlEscape(target))")) }
        if let text = settings.userMetadata { fields.append(("UserMetadata", xmlEscape(text))) }
        fields += [
            ("CreatedAt", HTTPDate.iso(settings.createdAt)), ("UpdatedAt", HTTPDate.iso(settings.updatedAt)),
            ("AccessedAt", HTTPDate.iso(max(queue.accessedAt, settings.createdAt))), ("SupportOrdering", "true"),
            ("CountDetails", AtomDescription.countDetails(queue)),
            ("AutoDeleteOnIdle", ISODuration.text(settings.autoDeleteOnIdle)), ("EnablePartitioning", "false"),
            ("EntityAvailabilityStatus", "Available"),
        ]
        if let target = settings.forwardDeadLettersTo {
            fields.append(("ForwardDeadLetteredMessagesTo", "sb://localhost/\(xmlEscape(target))"))
        }
        fields += [("EnableExpress", "false"), ("MaxMessageSizeInKilobytes", "256")]
        return AtomDescription.entry(
            name: xmlEscape(queue.name), base: base, published: settings.createdAt, updated: settings.updatedAt,
            content: AtomDescription.element("QueueDescription", fields))
    }
}
