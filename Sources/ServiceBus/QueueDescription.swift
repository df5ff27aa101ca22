/// Queues as Azure's administration describes them: Atom entries with a `QueueDescription`.
internal import EventLoops

/// Reads and writes descriptions; the order of elements matters to some clients.
enum QueueDescription {
    private static let connect = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
    private static let counts = "http://schemas.microsoft.com/netservices/2011/06/servicebus"

    /// What is wrong with a description.
    struct Refusal: Error, Equatable {
        let reason: String
    }

    // MARK: Reading

    /// The settings a description asks for, over `old` ones.
    static func settings(_ node: XMLNode, over old: QueueSettings) throws(Refusal) -> QueueSettings {
        var settings = old
        settings.lockDuration = try duration(node, "LockDuration", 5_000...300_000) ?? old.lockDuration
        settings.defaultTimeToLive =
            try duration(node, "DefaultMessageTimeToLive", 1...QueueSettings.forever) ?? old.defaultTimeToLive
        settings.duplicateDetectionWindow =
            try duration(node, "DuplicateDetectionHistoryTimeWindow", 5_000...604_800_000)
            ?? old.duplicateDetectionWindow
        settings.autoDeleteOnIdle =
            try duration(node, "AutoDeleteOnIdle", 300_000...QueueSettings.forever) ?? old.autoDeleteOnIdle
        settings.requiresDuplicateDetection =
            try flag(node, "RequiresDuplicateDetection") ?? old.requiresDuplicateDetection
        settings.requiresSession = try flag(node, "RequiresSession") ?? old.requiresSession
        settings.deadLettersOnExpiration =
            try flag(node, "DeadLetteringOnMessageExpiration") ?? old.deadLettersOnExpiration
        settings.maxDeliveryCount = try number(node, "MaxDeliveryCount", 1...2000) ?? old.maxDeliveryCount
        settings.maxSizeInMegabytes = try number(node, "MaxSizeInMegabytes", 1...81_920) ?? old.maxSizeInMegabytes
        if let text = node["ForwardTo"]?.text { settings.forwardTo = entity(text) }
        if let text = node["ForwardDeadLetteredMessagesTo"]?.text { settings.forwardDeadLettersTo = entity(text) }
        if let text = node["UserMetadata"]?.text { settings.userMetadata = text.isEmpty ? nil : text }
        if let text = node["Status"]?.text, !text.isEmpty {
            guard let status = QueueSettings.Status(rawValue: text) else {
                throw Refusal(reason: "Status is '\(text)'")
            }
            settings.status = status
        }
        return settings
    }

    /// Clients write full addresses.
    private static func entity(_ text: String) -> String? {
        let name = EntityPath(text).entity
        return name.isEmpty ? nil : name
    }

    private static func duration(
        _ node: XMLNode, _ name: String, _ range: ClosedRange<Int64>
    ) throws(Refusal) -> Int64? {
        guard let text = node[name]?.text, !text.isEmpty else { return nil }
        guard let value = ISODuration.milliseconds(text) else { throw Refusal(reason: "\(name) is '\(text)'") }
        let bounded = min(value, QueueSettings.forever)
        guard range.contains(bounded) else { throw Refusal(reason: "\(name) is '\(text)', out of range") }
        return bounded
    }

    private static func flag(_ node: XMLNode, _ name: String) throws(Refusal) -> Bool? {
        guard let text = node[name]?.text, !text.isEmpty else { return nil }
        guard let value = Bool(text.lowercased()) else { throw Refusal(reason: "\(name) is '\(text)'") }
        return value
    }

    private static func number(_ node: XMLNode, _ name: String, _ range: ClosedRange<Int>) throws(Refusal) -> Int? {
        guard let text = node[name]?.text, !text.isEmpty else { return nil }
        guard let value = Int(text), range.contains(value) else { throw Refusal(reason: "\(name) is '\(text)'") }
        return value
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
            ("CountDetails", countDetails(queue)),
            ("AutoDeleteOnIdle", ISODuration.text(settings.autoDeleteOnIdle)), ("EnablePartitioning", "false"),
            ("EntityAvailabilityStatus", "Available"),
        ]
        if let target = settings.forwardDeadLettersTo {
            fields.append(("ForwardDeadLetteredMessagesTo", "sb://localhost/\(xmlEscape(target))"))
        }
        fields += [("EnableExpress", "false"), ("MaxMessageSizeInKilobytes", "256")]
        let body = fields.map { "<\($0.0)>\($0.1)</\($0.0)>" }.joined()
        let name = xmlEscape(queue.name)
        let content =
            "<QueueDescription xmlns=\"\(connect)\" xmlns:i=\"http://www.w3.org/2001/XMLSchema-instance\">\(body)</QueueDescription>"
        return entry(
            name: name, base: base, published: settings.createdAt, updated: settings.updatedAt, content: content)
    }

    static func entry(name: String, base: String, published: Int64, updated: Int64, content: String) -> String {
        "<entry xmlns=\"http://www.w3.org/2005/Atom\"><id>\(base)/\(name)</id><title type=\"text\">\(name)</title>"
            + "<published>\(HTTPDate.iso(published))</published><updated>\(HTTPDate.iso(updated))</updated>"
            + "<author><name>andiron</name></author><link rel=\"self\" href=\"\(base)/\(name)\"/>"
            + "<content type=\"application/xml\">\(content)</content></entry>"
    }

    @EventLoop
    private static func countDetails(_ queue: MessageQueue) -> String {
        [
            ("ActiveMessageCount", queue.activeCount), ("DeadLetterMessageCount", queue.deadLetters?.activeCount ?? 0),
            ("ScheduledMessageCount", queue.scheduledCount), ("TransferMessageCount", 0),
            ("TransferDeadLetterMessageCount", queue.transferDeadLetters?.activeCount ?? 0),
        ].map { "<d2p1:\($0.0) xmlns:d2p1=\"\(counts)\">\($0.1)</d2p1:\($0.0)>" }.joined()
    }

    /// An Atom feed.
    static func feed(_ entries: [String], title: String, base: String, next: String?) -> String {
        var links = "<link rel=\"self\" href=\"\(xmlEscape(base))\"/>"
        if let next { links += "<link rel=\"next\" href=\"\(xmlEscape(next))\"/>" }
        return
            "<feed xmlns=\"http://www.w3.org/2005/Atom\"><title type=\"text\">\(xmlEscape(title))</title><id>\(xmlEscape(base))</id><updated>\(HTTPDate.iso(wallMilliseconds()))</updated>\(links)\(entries.joined())</feed>"
    }
}
