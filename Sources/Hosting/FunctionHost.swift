/// The host: one loaded app, its functions, its HTTP face, its life.
internal import Bindings
internal import Bundles
internal import ConfigurationFiles
public import Diagnostics
public import EventLoops
public import FunctionApps
internal import Glibc
internal import HTTPServers
public import Images
public import Invocations
internal import RedisClients
internal import Scoring
internal import ServiceBus
internal import Triggers
internal import Workers

/// Where the host is in its life; the Functions host's words.
public enum HostState: String, Sendable {
    case starting = "Starting"
    case running = "Running"
    /// host.json is wrong; the admin API serves, functions do not.
    case error = "Error"
    /// Work finishes, nothing new is taken.
    case stopping = "Stopping"
    case stopped = "Stopped"
    /// Taken offline by the admin API.
    case offline = "Offline"
}

/// Whether new work is taken.
public enum DrainState: String, Sendable {
    case disabled = "Disabled"
    case inProgress = "InProgress"
    case completed = "Completed"
}

/// Builds everything and holds it.
@EventLoop
public final class FunctionHost {
    public let options: StartOptions
    public private(set) var state = HostState.starting
    public private(set) var app: FunctionApp
    /// Loaded functions in name order.
    public private(set) var runtimes: [FunctionRuntime] = []
    public let dispatcher: Dispatcher
    public let keys: KeyStore
    public let startedAt = monotonicNanoseconds()
    let log: EventLog
    let logPath: String
    private(set) var cache: InferenceCache?
    private(set) var trigger: HTTPTrigger?
    private(set) var drainState = DrainState.disabled
    private var redis: RedisClient?
    private var cacheConfiguration: InferenceCacheConfiguration?
    private let environments: PythonEnvironments
    private let limits: HostLimits
    private var workerProgram = ""
    private var listener: HTTPListener?
    private var responder: HostResponder?
    private var watcher: AppWatcher?
    let listeners: ListenerTable
    let storage: HostStorage
    let embeddedBroker: EmbeddedBroker
    var busClients: [BrokerAddress: BusClient] = [:]
    private var retiring = 0
    /// The image the app comes from, when it does.
    var imageApp: ImageApp?
    /// Is told how an image comes along, and with nil that the pull is over.
    public var pullObserver: (@EventLoop (PullEvent?) -> Void)?
    /// The image an app comes from, when it does.
    public var imageName: String? {
        imageApp.map { $0.settings?.image ?? app.settings["DOCKER_CUSTOM_IMAGE_NAME"] ?? "" }
    }
    /// Called once, when functions run for the first time.
    public var becameReady: (@EventLoop () -> Void)?

    /// - Parameter logPath: where `log` ends up, to be named in answers.
    public init(options: StartOptions, log: EventLog, logPath: String) {
        self.options = options
        self.log = log
        self.logPath = logPath
        dispatcher = Dispatcher(log: log)
        listeners = ListenerTable(log: log)
        keys = KeyStore(folder: options.stateFolder + "/secrets")
        let isImage = ImageApp.isWanted(folder: options.folder, environment: options.environment)
        app =
            isImage
            ? FunctionApp.awaitingImage(folder: options.folder, environment: options.environment)
            : FunctionApp.load(folder: options.folder, environment: options.environment, only: options.functions)
        log.use(app.configuration.logLevels)
        storage = HostStorage(
            root: options.storageFolder ?? options.folder + "/storage",
            slotLimit: app.configuration.blobs.maxDegreeOfParallelism, log: log)
        embeddedBroker = EmbeddedBroker(
            options: options.broker, settings: app.settings,
            address: options.address ?? app.localHost.address ?? "127.0.0.1", appFolder: options.folder,
            stateFolder: options.stateFolder, log: log)
        limits = HostLimits(app.settings)
        environments = PythonEnvironments(
            cacheFolder: options.cacheFolder, python: app.settings["ANDIRON_PYTHON"] ?? "python3", log: log)
    }

    // MARK: Facts

    /// The bound port.
    public var port: Int { listener?.port ?? 0 }
    public var address: String { options.address ?? app.localHost.address ?? "127.0.0.1" }
    /// The address a person on this machine uses.
    public var url: String {
        let name = address == "0.0.0.0" || address == "127.0.0.1" || address == "::" ? "localhost" : address
        return "http://\(name.contains(":") ? "[\(name)]" : name):\(port)"
    }
    public var workerPIDs: [Int32] { runtimes.flatMap { $0.python?.pool?.status.pids ?? [] } }
    /// Where the cache's Redis is, without secrets.
    var cacheAddress: String? { redis?.address.description }
    /// A description of the cache for the banner.
    public var cacheDescription: String {
        guard cache != nil else { return "off" }
        return redis.map { "memory + \($0.address.description)" } ?? "memory"
    }

    /// The broker's AMQP port; 0 while it does not run.
    public var brokerPort: Int { embeddedBroker.port }
    /// Where a function's events come from: a queue, a blob's path; nil for HTTP.
    public func source(of function: String) -> String? { listeners.listener(of: function)?.source }

    /// The broker's port with TLS; 0 while there is none.
    public var brokerSecurePort: Int { embeddedBroker.securePort }

    /// The port of the broker's administration; 0 while there is none.
    public var brokerAdministrationPort: Int { embeddedBroker.administrationPort }

    /// The URL of a function, with its raw template; nil for one without HTTP.
    public func url(of function: FunctionMetadata) -> String? {
        function.http.map { http in
            let template = HTTPTrigger.template(
                of: HTTPFunction(metadata: function, http: http), prefix: app.configuration.http.routePrefix)
            return "\(url)/\(template)"
        }
    }

    /// The function `/score` stands for: host.json's `azureml.scoreFunction`, or the first that runs a script.
    var scoreRuntime: FunctionRuntime? {
        if let name = app.configuration.scoreFunction,
            let named = runtimes.first(where: { $0.metadata.name.caseInsensitiveEquals(name) })
        {
            return named
        }
        return runtimes.first { $0.python != nil && !$0.metadata.isDisabled } ?? runtimes.first
    }

    // MARK: Life

    /// Binds the port and loads the functions. Workers start in the background.
    ///
    /// - Throws: ``SystemError`` when the port or the state folder cannot be had.
    public func start() throws(SystemError) {
        storage.hostURL = { [unowned self] in url }
        storage.hostID = { [unowned self] in hostID }
        workerProgram = try installWorkerProgram(cacheFolder: options.cacheFolder)
        for problem in limits.problems { log(HostEvent(.configError, .warning, problem.text)) }
        let responder = HostResponder(host: self)
        self.responder = responder
        listener = try HTTPListener(
            address: address, port: options.port ?? app.localHost.port ?? StartOptions.defaultPort, limits: limits.http,
            responder: responder)
        if ImageApp.isWanted(folder: options.folder, environment: options.environment) {
            report(app.problems)
            imageApp = ImageApp(host: self, log: log)
            imageApp?.begin()
        } else {
            report(app.problems)
            install(app)
        }
        if app.configuration.fileWatchingEnabled { watcher = AppWatcher(host: self, log: log) }
    }

    /// Puts an app's functions to work, keeping those that have not changed and taking those that are warm.
    func install(_ app: FunctionApp, prepared: [FunctionRuntime] = []) {
        guard !app.isHostBroken else {
            // A host that runs keeps running with what it has.
            if runtimes.isEmpty { change(to: .error) }
            return
        }
        self.app = app
        log.use(app.configuration.logLevels)
        storage.slots.limit = app.configuration.blobs.maxDegreeOfParallelism
        updateCache()
        let old = runtimes
        runtimes = app.functions.map { function in
            let key = self.key(of: function, app)
            if let warm = prepared.first(where: { $0.metadata.name == function.name && $0.key == key }) { return warm }
            if let kept = old.first(where: { $0.metadata.name == function.name && $0.key == key && cacheIsUnchanged }) {
                kept.metadata = function
                return kept
            }
            let metrics = old.first { $0.metadata.name == function.name }?.metrics
            return makeRuntime(function, key, metrics ?? FunctionMetrics(), app.settings)
        }
        cacheIsUnchanged = true
        let functions = runtimes.compactMap { runtime in
            runtime.metadata.http.map { HTTPFunction(metadata: runtime.metadata, http: $0) }
        }
        do throws(RouteTemplateError) {
            trigger = try HTTPTrigger(
                functions: functions, configuration: app.configuration.http,
                authentication: options.enablesAuth ? .keys(keys) : .off, dispatcher: dispatcher)
        } catch {
            log(HostEvent(.configError, .error, "AN2008 routePrefix: \(error.reason)"))
        }
        responder?.update()
        startBrokerIfNeeded()
        connectBindings()
        dispatcher.use(runtimes)
        announce(old: old)
        for runtime in old where !runtimes.contains(where: { $0 === runtime }) { retire(runtime) }
        updateListeners()
        change(to: .running)
        becameReady?()
        becameReady = nil
    }

    /// Runtimes for an app that is to take the place of this one; their workers start.
    func makeRuntimes(of app: FunctionApp) -> [FunctionRuntime] {
        app.functions.map { function in
            let metrics = runtimes.first { $0.metadata.name == function.name }?.metrics
            return makeRuntime(function, key(of: function, app), metrics ?? FunctionMetrics(), app.settings)
        }
    }

    private var cacheIsUnchanged = true

    private func announce(old: [FunctionRuntime]) {
        for runtime in runtimes where !old.contains(where: { $0.metadata.name == runtime.metadata.name }) {
            let function = runtime.metadata
            log(
                HostEvent(
                    .functionDiscovered, .debug, "function found",
                    [
                        ("function", .text(function.name)), ("trigger", .text(function.triggerType)),
                        ("url", .text(url(of: function) ?? "")),
                    ]))
        }
        for runtime in old where !runtimes.contains(where: { $0.metadata.name == runtime.metadata.name }) {
            log(
                HostEvent(
                    .functionRemoved, .information, "function removed", [("function", .text(runtime.metadata.name))]))
        }
    }

    func retire(_ runtime: FunctionRuntime) {
        retiring += 1
        loopTask { [self] in
            await runtime.stop()
            retiring -= 1
        }
    }

    private func key(of function: FunctionMetadata, _ app: FunctionApp) -> RuntimeKey {
        let count = app.settings["FUNCTIONS_WORKER_PROCESS_COUNT"].flatMap { Int($0) } ?? 1
        return RuntimeKey(
            entryPoint: function.entryPoint, usesCache: function.usesInferenceCache, features: function.features,
            timeout: app.configuration.functionTimeout, processCount: min(max(count, 1), 10),
            settings: SHA256Digest(
                of: Array(
                    workerSettings(app.settings).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)\n" }.joined()
                        .utf8)))
    }

    private func makeRuntime(
        _ function: FunctionMetadata, _ key: RuntimeKey, _ metrics: FunctionMetrics, _ settings: AppSettings
    ) -> FunctionRuntime {
        let scorer: any Scorer
        var python: PythonScorer?
        switch function.entryPoint {
        case .echo: scorer = EchoScorer(answersSize: false)
        case .size: scorer = EchoScorer(answersSize: true)
        case .bundle(let folder, let script):
            let made = PythonScorer(folder: folder, script: script, log: log) { [unowned self] bundle in
                WorkerPool(
                    functionName: function.name, bundle: bundle, settings: poolSettings(bundle, key, settings),
                    environments: environments, log: log)
            }
            if !function.isDisabled || !options.enablesAuth { made.load() }
            python = made
            scorer = made
        }
        // The echo measures the host; caching it would measure something else. It can still ask for the cache.
        let usesCache = function.usesInferenceCache ?? (python == nil ? false : nil)
        let pipeline = ScoringPipeline(
            scorer: scorer, cache: cache, usesCache: usesCache, functionName: function.name,
            features: function.features.map { FeatureInput(source: $0, redis: redis) })
        return FunctionRuntime(metadata: function, metrics: metrics, python: python, pipeline: pipeline, key: key)
    }

    /// The settings a script sees: all but who we are at a registry, as in App Service.
    private func workerSettings(_ settings: AppSettings) -> [String: String] {
        let visible = settings.all.filter { !$0.name.uppercased().hasPrefix("DOCKER_REGISTRY_SERVER_") }
        return Dictionary(visible.map { ($0.name, $0.value) }) { first, _ in first }
    }

    private func poolSettings(_ bundle: Bundle, _ key: RuntimeKey, _ settings: AppSettings) -> WorkerPoolSettings {
        var environment = workerSettings(settings)
        let ownRedis = settings["RedisConnectionString"].flatMap { try? RedisAddress($0) }
        environment.merge(ownRedis?.environment ?? [:]) { own, _ in own }
        environment["AZURE_FUNCTIONS_ENVIRONMENT"] = "Development"
        environment["WEBSITE_HOSTNAME"] = "localhost:\(port)"
        let fromSetting = settings["SCORING_TIMEOUT_MS"].flatMap { Int($0) }.map { Duration.milliseconds($0) }
        let scoring = bundle.scoringTimeout ?? fromSetting
        let timeout = [scoring, key.timeout].compactMap { $0 }.min()
        return WorkerPoolSettings(
            processCount: bundle.workerCount ?? key.processCount, timeout: timeout,
            timeoutName: timeout == scoring && scoring != nil ? "scoringTimeoutMs" : "functionTimeout",
            environment: environment, workerProgram: workerProgram, queueLimit: limits.workerQueue,
            startTimeout: limits.workerStart)
    }

    private func updateCache() {
        let address = app.settings["RedisConnectionString"]
        var configuration = app.configuration.inferenceCache
        if configuration == nil, address != nil { configuration = InferenceCacheConfiguration() }
        guard configuration != cacheConfiguration else { return }
        cacheConfiguration = configuration
        cacheIsUnchanged = false
        redis?.close()
        redis = nil
        cache = nil
        guard let configuration else { return }
        if let address {
            do throws(RedisError) {
                redis = RedisClient(
                    address: try RedisAddress(address), connectTimeout: configuration.redisConnectTimeout, log: log)
            } catch {
                log(HostEvent(.configError, .error, error.description, [("code", .text(error.code))]))
            }
        }
        var limits = InferenceCacheLimits(
            timeToLive: configuration.timeToLive, entryCount: configuration.maxEntries,
            memoryByteCount: configuration.maxMemoryBytes, entryByteCount: configuration.maxEntryBytes,
            redisTimeout: configuration.redisTimeout, keyPrefix: configuration.keyPrefix)
        limits.jitter = configuration.timeToLiveJitter
        limits.staleWhileRevalidate = configuration.staleWhileRevalidate
        limits.errorTimeToLive = configuration.errorTimeToLive
        limits.compressAboveByteCount = configuration.compressAboveBytes
        limits.sharesFlights = configuration.singleFlightAcrossHosts
        cache = InferenceCache(limits: limits, redis: redis, log: log)
    }

    /// Reads the app again and puts it to work.
    public func reload() {
        guard state != .stopping, state != .stopped else { return }
        log.log(.information, "Host configuration has changed. Reloading")
        if imageApp != nil, imageApp?.content == nil { return }
        let app = loadApp(content: imageApp?.content)
        report(app.problems)
        install(app)
        watcher?.refresh()
    }

    private func change(to new: HostState) {
        guard state != new else { return }
        log(
            HostEvent(
                .hostStateChanged, .debug, "Host state changed from \(state.rawValue) to \(new.rawValue).",
                [("from", .text(state.rawValue)), ("to", .text(new.rawValue))]))
        state = new
    }

    /// Takes no new work, and completes when what runs has finished.
    func drain() {
        guard drainState == .disabled else { return }
        drainState = .inProgress
        loopTask { [self] in
            await listeners.stop()
            await dispatcher.waitUntilQuiet()
            if drainState == .inProgress { drainState = .completed }
        }
    }

    func resume() {
        drainState = .disabled
        listeners.resume()
    }

    func setOffline(_ offline: Bool) {
        if offline {
            change(to: .offline)
            loopTask { [self] in await listeners.stop() }
        } else if state == .offline {
            change(to: app.isHostBroken ? .error : .running)
            listeners.resume()
        }
    }

    /// Finishes what runs (at most the shutdown timeout), ends the workers, closes the port.
    public func stop() async {
        guard state != .stopping, state != .stopped else { return }
        change(to: .stopping)
        imageApp?.stop()
        watcher = nil
        drainState = .inProgress
        let deadline = Gate()
        let timer = LoopTimer { deadline.open() }
        timer.start(
            after: options.shutdownTimeout ?? imageApp?.settings?.stopTimeLimit ?? StartOptions.defaultShutdownTimeout)
        loopTask { [self] in
            await listeners.stop()
            await dispatcher.waitUntilQuiet()
            await listener?.drain()
            deadline.open()
        }
        await deadline.wait()
        timer.stop()
        listeners.abandonUnfinished()
        listener?.close()
        let stopped = Gate()
        let patience = LoopTimer { stopped.open() }
        patience.start(after: WorkerPoolSettings.stopTimeout)
        loopTask { [self] in
            for runtime in runtimes where dispatcher.inFlight > 0 { runtime.python?.pool?.kill() }
            for runtime in runtimes { await runtime.stop() }
            stopped.open()
        }
        await stopped.wait()
        patience.stop()
        for runtime in runtimes { runtime.python?.pool?.kill() }
        imageApp?.removeTrees()
        redis?.close()
        await storage.close()
        for client in busClients.values { client.close() }
        embeddedBroker.stop()
        change(to: .stopped)
        log(
            HostEvent(
                .summary, .information, "Host stopped",
                [("invocations", .integer(dispatcher.completed)), ("unfinished", .integer(dispatcher.inFlight))]))
    }
}
