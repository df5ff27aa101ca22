/// Which listener and which bindings a function gets: the one place that knows all kinds.
internal import Bindings
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import Invocations
internal import JSONText
internal import StorageAccounts
internal import Triggers

extension FunctionHost {
    /// Puts a listener to work for every function whose trigger is not HTTP.
    func updateListeners() {
        var wanted: [(name: String, key: String, make: @EventLoop () -> (any TriggerListener)?)] = []
        for runtime in runtimes where options.listens && !runtime.metadata.isDisabled {
            let function = runtime.metadata
            guard let trigger = function.bindings.first(where: \.isTrigger), trigger.type.lowercased() != "httptrigger"
            else { continue }
            wanted.append(
                (function.name, listenerKey(trigger), { [unowned self] in makeListener(of: function, trigger) }))
        }
        listeners.update(wanted)
        serveStorage()
    }

    /// Serves the storage folder over REST when a function uses it, or when a port was asked for.
    private func serveStorage() {
        let isUsed = app.functions.contains { function in
            function.bindings.contains { binding in
                ["blobtrigger", "blob", "queuetrigger", "queue"].contains(binding.type.lowercased())
                    && (try? StorageConnection.resolve(binding.text("connection"), settings: app.settings))?.isEmbedded
                        == true
            }
        }
        guard options.listens, isUsed || options.blobPort != nil || options.queuePort != nil else { return }
        storage.serve(
            blobPort: options.blobPort ?? (options.port == 0 ? 0 : HostStorage.blobPort),
            queuePort: options.queuePort ?? (options.port == 0 ? 0 : HostStorage.queuePort)
        ) { [unowned self] in hostID }
    }

    /// URLs of the storage services, for people and the ready file.
    public var blobEndpoint: String? { storage.blobEndpoint }
    public var queueEndpoint: String? { storage.queueEndpoint }

    /// What a listener depends on: when it has not changed, the listener goes on over a reload.
    private func listenerKey(_ trigger: BindingMetadata) -> String {
        var writer = JSONWriter()
        writer.value(trigger.properties)
        return String(decoding: writer.bytes, as: UTF8.self) + "\(app.configuration.blobs)\(app.configuration.queues)"
            + "\(app.configuration.serviceBus)"
    }

    private func makeListener(of function: FunctionMetadata, _ trigger: BindingMetadata) -> (any TriggerListener)? {
        switch trigger.type.lowercased() {
        case "blobtrigger":
            DeferredListener(source: trigger.text("path") ?? "", functionName: function.name, log: log) { [self] in
                BlobListener(
                    functionName: function.name, pattern: try BlobPathPattern(trigger.text("path") ?? ""),
                    account: try storage.account(for: connection(trigger)), slots: storage.slots,
                    configuration: app.configuration.blobs,
                    dispatcher: dispatcher, log: log)
            }
        case "queuetrigger":
            DeferredListener(source: trigger.text("queueName") ?? "", functionName: function.name, log: log) { [self] in
                QueueListener(
                    functionName: function.name, queue: (trigger.text("queueName") ?? "").lowercased(),
                    store: try queueStore(trigger)(), configuration: app.configuration.queues, dispatcher: dispatcher,
                    log: log)
            }
        case "servicebustrigger": makeBusListener(of: function, trigger)
        default: nil
        }
    }

    /// Gives each function its input and output bindings other than HTTP.
    func connectBindings() {
        for runtime in runtimes {
            let function = runtime.metadata
            var inputs: [any InputBinding] = []
            var outputs: [any OutputBinding] = []
            for binding in function.bindings where !binding.isTrigger {
                if binding.direction != .out, let input = makeInput(binding, function) { inputs.append(input) }
                if binding.direction != .in, let output = makeOutput(binding, function) { outputs.append(output) }
            }
            let hasReturn = function.bindings.contains { $0.name == "$return" }
            runtime.bindings =
                inputs.isEmpty && outputs.isEmpty
                ? nil : FunctionBindings(inputs: inputs, outputs: outputs, hasReturn: hasReturn)
        }
    }

    private func makeInput(_ binding: BindingMetadata, _ function: FunctionMetadata) -> (any InputBinding)? {
        switch binding.type.lowercased() {
        case "blob":
            template(binding, "path").map {
                BlobInput(
                    name: binding.name, path: $0, byteLimit: app.configuration.blobs.maxBlobBytes,
                    store: blobStore(binding))
            }
        default: nil
        }
    }

    private func makeOutput(_ binding: BindingMetadata, _ function: FunctionMetadata) -> (any OutputBinding)? {
        switch binding.type.lowercased() {
        case "blob":
            template(binding, "path").map { BlobOutput(name: binding.name, path: $0, store: blobStore(binding)) }
        case "queue":
            template(binding, "queueName").map {
                QueueOutput(
                    name: binding.name, queue: $0, isBase64: app.configuration.queues.isBase64,
                    store: queueStore(binding))
            }
        case "servicebus": makeBusOutput(binding)
        default: nil
        }
    }

    /// A text property as a template; it was checked when the app was loaded.
    private func template(_ binding: BindingMetadata, _ key: String) -> BindingTemplate? {
        try? BindingTemplate(binding.text(key) ?? "")
    }

    private func blobStore(_ binding: BindingMetadata) -> BlobStoreSource {
        let connection = connection(binding)
        return { [unowned self] () throws(StorageError) in try storage.account(for: connection) }
    }

    /// Where a binding's `connection` leads; it was checked when the app was loaded.
    private func connection(_ binding: BindingMetadata) -> StorageConnection {
        (try? StorageConnection.resolve(binding.text("connection"), settings: app.settings)) ?? .embedded
    }

    private func queueStore(_ binding: BindingMetadata) -> QueueStoreSource {
        let connection = connection(binding)
        return { [unowned self] () throws(StorageError) in try storage.account(for: connection) }
    }
}
