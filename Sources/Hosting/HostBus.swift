/// The host's connections to brokers: the embedded one, and those that connection settings name.
internal import Bindings
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import Invocations
internal import JSONText
internal import ServiceBus
internal import Triggers

extension FunctionHost {
    /// What clients connect with to the broker in this host; nil when it does not run.
    public var brokerConnectionString: String? {
        brokerPort == 0 ? nil : embeddedConnectionString(port: brokerPort)
    }

    /// The entity a binding names: a queue, a topic, or a topic's subscription.
    func busEntity(_ binding: BindingMetadata) -> String {
        if let queue = binding.text("queueName") { return queue }
        let topic = binding.text("topicName") ?? ""
        guard binding.isTrigger, let subscription = binding.text("subscriptionName") else { return topic }
        return "\(topic)/Subscriptions/\(subscription)"
    }

    /// Where a binding's broker is. Without a setting, and with one that says `UseDevelopmentEmulator` on this machine,
    /// it is the broker in this host.
    func brokerAddress(_ binding: BindingMetadata) throws(ServiceBusError) -> BrokerAddress? {
        let name = binding.text("connection") ?? ""
        let setting = name.isEmpty ? "AzureWebJobsServiceBus" : name
        let text =
            app.settings[setting] ?? app.settings["AzureWebJobs\(setting)"]
            ?? app.settings["ConnectionStrings:\(setting)"]
        guard let text else {
            if let host = app.settings["\(setting)__fullyQualifiedNamespace"] {
                throw .connectionString(
                    setting: setting,
                    reason: "asks for an identity at \(host), which is not supported; use a shared access key")
            }
            guard name.isEmpty else { throw .connectionString(setting: setting, reason: "is not set") }
            return nil
        }
        let address = try BrokerAddress(text, setting: setting)
        guard let only = address.entityPath, only.lowercased() != busEntity(binding).lowercased() else {
            return address
        }
        throw .connectionString(
            setting: setting, reason: "is for '\(only)' only and the binding names '\(busEntity(binding))'")
    }

    private func isEmbedded(_ binding: BindingMetadata) -> Bool {
        guard let address = try? brokerAddress(binding) else { return (binding.text("connection") ?? "").isEmpty }
        guard address.isEmbedded else { return false }
        // An emulator on a port that is not ours is somebody else's.
        guard let port = address.port else { return true }
        let mine = embeddedBroker.wantedPort
        return mine == 0 ? port == BrokerListener.defaultPort : port == mine
    }

    /// Runs the broker when somebody asked for it or a function needs it, with the queues that triggers name.
    func startBrokerIfNeeded() {
        let bindings = runtimes.filter { !$0.metadata.isDisabled }.flatMap(\.metadata.bindings).filter {
            $0.type.lowercased().hasPrefix("servicebus")
        }
        let mine = bindings.filter { isEmbedded($0) }
        guard embeddedBroker.isAskedFor || !mine.isEmpty else { return }
        embeddedBroker.start()
        for binding in mine {
            let needsSessions = binding.flag("isSessionsEnabled") ?? false
            embeddedBroker.ensure(
                busEntity(binding), needsSessions: needsSessions, isTrigger: binding.isTrigger,
                isTopic: binding.text("queueName") == nil)
        }
    }

    /// The connection a binding uses; throws while it cannot be had.
    func busClient(_ binding: BindingMetadata) throws(ServiceBusError) -> BusClient {
        if isEmbedded(binding) { return try embeddedClient() }
        guard let address = try brokerAddress(binding) else { return try embeddedClient() }
        if address.kind != .serviceBus {
            let setting = binding.text("connection") ?? ""
            // Without its order a session is not one; a topic's name would be taken for a queue's.
            if binding.isTrigger, binding.flag("isSessionsEnabled") == true {
                throw .needsServiceBus(setting: setting, feature: "sessions")
            }
            if binding.text("queueName") == nil { throw .needsServiceBus(setting: setting, feature: "topics") }
        }
        return client(of: address)
    }

    private func embeddedClient() throws(ServiceBusError) -> BusClient {
        guard embeddedBroker.broker != nil else {
            throw embeddedBroker.failure
                ?? .port(name: "AMQP", reason: "the broker does not run", setting: "--servicebus-port")
        }
        let key = embeddedBroker.broker?.keys.min { $0.key < $1.key }.map { (name: $0.key, key: $0.value) }
        return client(of: .embedded(port: embeddedBroker.port, key: key))
    }

    private func client(of address: BrokerAddress) -> BusClient {
        if let known = busClients[address] { return known }
        let authority = app.settings["ANDIRON_SERVICEBUS_CA_FILE"]
        let made = BusClient(address: address) {
            var settings = TLSClientSettings()
            settings.authorityFile = authority
            return try TLSContext(client: settings)
        }
        made.tokenLifetime = tokenLifetime
        busClients[address] = made
        return made
    }

    /// `ANDIRON_SERVICEBUS_TOKEN_LIFETIME`, a time span from 2 s to a day; anything else is the default.
    private var tokenLifetime: Duration {
        guard let text = app.settings["ANDIRON_SERVICEBUS_TOKEN_LIFETIME"] else {
            return BusClient.defaultTokenLifetime
        }
        if let span = parseTimeSpan(text), span >= .seconds(2), span <= .seconds(86_400) { return span }
        log.log(
            .warning,
            "ANDIRON_SERVICEBUS_TOKEN_LIFETIME is '\(text)' and is not used; it must be a time span from 00:00:02 to 1.00:00:00"
        )
        return BusClient.defaultTokenLifetime
    }

    func makeBusListener(of function: FunctionMetadata, _ trigger: BindingMetadata) -> any TriggerListener {
        let entity = busEntity(trigger)
        return DeferredListener(source: entity, functionName: function.name, log: log) { [unowned self] in
            var options = ServiceBusTriggerOptions(entity: entity, configuration: app.configuration.serviceBus)
            options.isSessionsEnabled = trigger.flag("isSessionsEnabled") ?? false
            options.isBatch = trigger.text("cardinality")?.lowercased() == "many"
            options.autoCompletes = trigger.flag("autoCompleteMessages") ?? options.autoCompletes
            options.maxBatchSize = trigger.integer("maxMessageBatchSize") ?? options.maxBatchSize
            return ServiceBusListener(
                functionName: function.name, options: options, configuration: app.configuration.serviceBus,
                client: try busClient(trigger), dispatcher: dispatcher, log: log)
        }
    }

    func makeBusOutput(_ binding: BindingMetadata) -> (any OutputBinding)? {
        guard let entity = try? BindingTemplate(busEntity(binding)) else { return nil }
        let options = app.configuration.serviceBus.clientRetryOptions
        var retry = BusRetryPolicy()
        retry.isExponential = options.isExponential
        retry.tryTimeout = options.tryTimeout
        retry.delay = options.delay
        retry.maxDelay = options.maxDelay
        retry.maxRetries = options.maxRetries
        var senders: [String: BusSender] = [:]
        return ServiceBusOutput(name: binding.name, entity: entity) { [unowned self] name throws(ServiceBusError) in
            if let known = senders[name] { return known }
            let made = BusSender(client: try busClient(binding), entity: name, retry: retry)
            senders[name] = made
            return made
        }
    }
}

extension BindingMetadata {
    private func property(_ key: String) -> JSONValue? {
        properties.members?.last { $0.name.lowercased() == key.lowercased() }?.value
    }

    /// A property that is true or false, in words or not.
    fileprivate func flag(_ key: String) -> Bool? {
        property(key).flatMap { value in value.bool ?? value.string.flatMap { Bool($0.lowercased()) } }
    }

    /// A property that is a whole number.
    fileprivate func integer(_ key: String) -> Int? {
        property(key).flatMap { value in value.integer ?? value.string.flatMap { Int($0) } }
    }
}
