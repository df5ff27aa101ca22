/// Settings of Service Bus triggers, host.json `extensions.serviceBus`, and the checks of their bindings.
internal import ConfigurationFiles
internal import Invocations
internal import JSONText

/// How messages are taken; names and defaults are the extension's (ServiceBusOptions 5.x).
public struct ServiceBusConfiguration: Sendable, Equatable {
    /// `prefetchCount`: messages fetched beyond those that run, default 0.
    public var prefetchCount = 0
    /// `autoCompleteMessages`: whether a message is completed when the function succeeds, default true.
    public var autoCompleteMessages = true
    /// `maxAutoLockRenewalDuration`: how long locks are renewed while the function runs, default 5 min; nil is for ever.
    public var maxAutoLockRenewalDuration: Duration? = .seconds(300)
    /// `maxConcurrentCalls`: messages of one function that run at once, default 16 for each core.
    public var maxConcurrentCalls = 16 * BlobsConfiguration.coreCount
    /// `maxConcurrentSessions`: sessions of one function held at once, default 8.
    public var maxConcurrentSessions = 8
    /// `maxConcurrentCallsPerSession`: messages of one session that run at once, default 1.
    public var maxConcurrentCallsPerSession = 1
    /// `maxMessageBatchSize`: messages given to a batch function at once, default 1000.
    public var maxMessageBatchSize = 1000
    /// `minMessageBatchSize`: messages waited for, default 1.
    public var minMessageBatchSize = 1
    /// `maxBatchWaitTime`: how long they are waited for, default 30 s.
    public var maxBatchWaitTime = Duration.seconds(30)
    /// `sessionIdleTimeout`: the pause after which a session is given back, default `clientRetryOptions.tryTimeout`.
    public var sessionIdleTimeout = Duration.seconds(60)
    /// `clientRetryOptions`: how an output message that a broker did not take is tried again.
    public var clientRetryOptions = ClientRetryOptions()

    /// `clientRetryOptions`; names and defaults are those of `ServiceBusRetryOptions`.
    public struct ClientRetryOptions: Sendable, Equatable {
        /// `mode`: `Exponential`, each pause twice the one before, or `Fixed`; default Exponential.
        public var isExponential = true
        /// `tryTimeout`: how long one try may take, default 1 min.
        public var tryTimeout = Duration.seconds(60)
        /// `delay`: the pause before the first retry, default 0.8 s.
        public var delay = Duration.milliseconds(800)
        /// `maxDelay`: the longest pause, default 1 min.
        public var maxDelay = Duration.seconds(60)
        /// `maxRetries`: tries after the first, default 3.
        public var maxRetries = 3

        public init() {}

        static let keys = ["mode", "tryTimeout", "delay", "maxDelay", "maxRetries"]

        static func read(_ section: JSONValue, _ reader: inout ConfigurationReader) -> Self {
            var options = Self()
            if let mode = reader.text(section, "mode") {
                options.isExponential = mode.lowercased() != "fixed"
                if !["fixed", "exponential"].contains(mode.lowercased()) {
                    reader.report(
                        "AN2003", "'mode' is '\(mode)'; it must be Exponential or Fixed",
                        at: reader.value(section, "mode"))
                }
            }
            let span = Duration.milliseconds(1) ... .seconds(3600)
            options.tryTimeout = reader.duration(section, "tryTimeout", in: span) ?? options.tryTimeout
            options.delay = reader.duration(section, "delay", in: span) ?? options.delay
            options.maxDelay = reader.duration(section, "maxDelay", in: span) ?? options.maxDelay
            options.maxRetries = reader.integer(section, "maxRetries", in: 0...100) ?? options.maxRetries
            return options
        }
    }

    public init() {}

    static let keys = [
        "prefetchCount", "autoCompleteMessages", "maxAutoLockRenewalDuration", "maxConcurrentCalls",
        "maxConcurrentSessions", "maxConcurrentCallsPerSession", "maxMessageBatchSize", "minMessageBatchSize",
        "maxBatchWaitTime", "sessionIdleTimeout", "clientRetryOptions",
    ]
    /// Accepted and of no effect here.
    private static let idleKeys = ["transportType", "webProxy", "enableCrossEntityTransactions"]
    /// Where the extension's version 4 had its settings; version 5 reads these of them.
    private static let oldSections = [
        "messageHandlerOptions": ["autoComplete", "maxAutoRenewDuration", "maxConcurrentCalls"],
        "sessionHandlerOptions": [
            "autoComplete", "maxAutoRenewDuration", "maxConcurrentSessions", "messageWaitTime", "messageWaitTimeout",
        ],
        "batchOptions": ["autoComplete", "maxMessageCount", "operationTimeout"],
    ]

    /// Every key with an effect, for the reference page's test.
    static let documentedKeys =
        keys.filter { $0 != "clientRetryOptions" } + ClientRetryOptions.keys.map { "clientRetryOptions.\($0)" }

    static func read(_ section: JSONValue, _ reader: inout ConfigurationReader) -> Self {
        var bus = ServiceBusConfiguration()
        reader.checkKeys(of: section, known: keys + idleKeys + oldSections.keys, in: "serviceBus")
        let old = reader.section(section, "messageHandlerOptions", known: oldSections["messageHandlerOptions"])
        let sessions = reader.section(section, "sessionHandlerOptions", known: oldSections["sessionHandlerOptions"])
        let batches = reader.section(section, "batchOptions", known: oldSections["batchOptions"])
        if let retry = reader.section(section, "clientRetryOptions", known: ClientRetryOptions.keys) {
            bus.clientRetryOptions = .read(retry, &reader)
        }
        bus.prefetchCount = reader.integer(section, "prefetchCount", in: 0...100_000) ?? 0
        bus.autoCompleteMessages =
            reader.flag(section, "autoCompleteMessages") ?? reader.flag(old, "autoComplete")
            ?? reader.flag(sessions, "autoComplete") ?? reader.flag(batches, "autoComplete") ?? true
        if reader.text(section, "maxAutoLockRenewalDuration")?.hasPrefix("-") == true {
            bus.maxAutoLockRenewalDuration = nil
        } else {
            let range = Duration.zero ... .seconds(864_000)
            bus.maxAutoLockRenewalDuration =
                reader.duration(section, "maxAutoLockRenewalDuration", in: range)
                ?? reader.duration(old, "maxAutoRenewDuration", in: range)
                ?? reader.duration(sessions, "maxAutoRenewDuration", in: range) ?? .seconds(300)
        }
        bus.maxConcurrentCalls =
            reader.integer(section, "maxConcurrentCalls", in: 1...100_000)
            ?? reader.integer(old, "maxConcurrentCalls", in: 1...100_000) ?? bus.maxConcurrentCalls
        bus.maxConcurrentSessions =
            reader.integer(section, "maxConcurrentSessions", in: 1...10_000)
            ?? reader.integer(sessions, "maxConcurrentSessions", in: 1...10_000) ?? 8
        bus.maxConcurrentCallsPerSession =
            reader.integer(section, "maxConcurrentCallsPerSession", in: 1...10_000) ?? 1
        bus.maxMessageBatchSize =
            reader.integer(section, "maxMessageBatchSize", in: 1...100_000)
            ?? reader.integer(batches, "maxMessageCount", in: 1...100_000) ?? 1000
        bus.minMessageBatchSize = reader.integer(section, "minMessageBatchSize", in: 1...100_000) ?? 1
        if bus.minMessageBatchSize > bus.maxMessageBatchSize {
            reader.report(
                "AN2003", "The minimum message batch size must be less than the maximum message batch size",
                at: reader.value(section, "minMessageBatchSize"))
        }
        bus.maxBatchWaitTime =
            reader.duration(section, "maxBatchWaitTime", in: .zero ... .seconds(150)) ?? bus.maxBatchWaitTime
        let idle = Duration.milliseconds(10) ... .seconds(86_400)
        bus.sessionIdleTimeout =
            reader.duration(section, "sessionIdleTimeout", in: idle)
            ?? reader.duration(sessions, "messageWaitTime", in: idle)
            ?? reader.duration(sessions, "messageWaitTimeout", in: idle) ?? bus.clientRetryOptions.tryTimeout
        return bus
    }
}

extension FunctionFile {
    /// Checks `serviceBusTrigger` and `serviceBus` bindings.
    func checkServiceBus(_ binding: BindingMetadata, _ reader: inout ConfigurationReader) {
        let value = binding.properties
        guard ["servicebustrigger", "servicebus"].contains(binding.type.lowercased()) else { return }
        let queue = binding.text("queueName")
        let topic = binding.text("topicName")
        let subscription = binding.text("subscriptionName")
        if (queue == nil) == (topic == nil) {
            reader.report(
                "AN8006", "a binding of Service Bus names either a queueName or a topicName", at: value,
                remedy: "\"queueName\": \"orders\"")
        }
        if binding.isTrigger, topic != nil, subscription == nil {
            reader.report(
                "AN8006", "a trigger on a topic needs a subscriptionName", at: value,
                remedy: "\"subscriptionName\": \"all\"")
        }
        for (key, name) in [("queueName", queue), ("topicName", topic), ("subscriptionName", subscription)] {
            guard let name, name.isEmpty || name.utf8.count > 260 || name.contains(" ") else { continue }
            reader.report(
                "AN8006", "'\(key)' is '\(name)'", at: reader.value(value, key),
                remedy: "letters, digits, '.', '-', '_' and '/', 1 to 260 characters")
        }
        if binding.isTrigger, binding.direction != .in {
            reader.report(
                "AN2007", "'\(binding.direction.rawValue)' is not a direction of a trigger; it is in.",
                at: reader.value(value, "direction"))
        }
        if !binding.isTrigger, binding.direction != .out {
            reader.report(
                "AN2007", "a serviceBus binding can only be an output", at: reader.value(value, "direction"),
                remedy: "\"direction\": \"out\"")
        }
        if binding.isTrigger {
            _ = reader.flag(value, "isSessionsEnabled")
            _ = reader.flag(value, "autoCompleteMessages")
            _ = reader.integer(value, "maxMessageBatchSize", in: 1...100_000)
        }
    }
}
