/// host.json, resolved: every value present, every limit checked.
///
/// Keys and defaults are those of Azure Functions v4 (learn.microsoft.com, «host.json reference»); the two
/// sections `inferenceCache` and `azureml` are Andiron's. `docs/reference/host-json.md` lists them all.
public import ConfigurationFiles
public import Diagnostics
internal import Glibc
public import Invocations
internal import JSONText

/// Settings of the HTTP trigger, host.json `extensions.http`.
public struct HTTPConfiguration: Sendable, Equatable {
    /// `routePrefix`: text, default `api`.
    public var routePrefix = "api"
    /// `maxOutstandingRequests`: queued and running, default -1 (unlimited); nil here.
    public var maxOutstandingRequests: Int?
    /// `maxConcurrentRequests`: running, default -1 (unlimited); nil here.
    public var maxConcurrentRequests: Int?
    /// `customHeaders`: added to every response unless the function set them.
    public var customHeaders: [CustomHeader] = []

    public init() {}
}

/// One entry of `customHeaders`.
public struct CustomHeader: Sendable, Equatable {
    public let name: String
    public let value: String
}

/// Settings of the inference cache, host.json `inferenceCache`.
public struct InferenceCacheConfiguration: Sendable, Equatable {
    /// `timeToLive`: time span, default one hour.
    public var timeToLive = Duration.seconds(3600)
    /// `timeToLiveJitter`: the part of the time to live by which it is shortened at random, 0 to 0.9, default 0.1.
    public var timeToLiveJitter = 0.1
    /// `staleWhileRevalidate`: how long past its time a result is given while a new one is computed, default 0.
    public var staleWhileRevalidate = Duration.zero
    /// `errorTimeToLive`: how long a user's error is kept, default 0: not at all.
    public var errorTimeToLive = Duration.zero
    /// `compressAboveBytes`: bodies of so many bytes are compressed for Redis, default 4096.
    public var compressAboveBytes = 4096
    /// `singleFlightAcrossHosts`: whether hosts that share a Redis compute equal requests once, default true.
    public var singleFlightAcrossHosts = true
    /// `maxEntries`: results kept in memory, default 10 000; 0 keeps them in Redis only.
    public var maxEntries = 10_000
    /// `maxMemoryBytes`: bytes of results kept in memory, default 64 MiB.
    public var maxMemoryBytes = 64 << 20
    /// `maxEntryBytes`: the largest result cached, default 1 MiB.
    public var maxEntryBytes = 1 << 20
    /// `redisTimeout`: what Redis may add to a request at most, default 5 ms.
    public var redisTimeout = Duration.milliseconds(5)
    /// `redisConnectTimeout`: time span, default 2 s.
    public var redisConnectTimeout = Duration.seconds(2)
    /// `keyPrefix`: text before each key in Redis, default `andiron:`.
    public var keyPrefix = "andiron:"

    public init() {}
}

/// Settings of blob triggers, host.json `extensions.blobs`.
public struct BlobsConfiguration: Sendable, Equatable {
    /// `maxDegreeOfParallelism`: blobs scored at once by all functions together, default 8 for each core.
    public var maxDegreeOfParallelism = 8 * coreCount
    /// `poisonBlobThreshold`: attempts before a blob is given up, default 5.
    public var poisonBlobThreshold = 5
    /// `maxBlobBytes`: the largest blob that is scored, default 100 MiB (Andiron's).
    public var maxBlobBytes = 100 << 20
    /// `skipExistingBlobs`: leaves blobs alone that are there when a function first starts, default false (Andiron's).
    public var skipExistingBlobs = false

    public init() {}

    static let coreCount = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))

    /// Events fetched at once, as the storage extension derives it.
    public var batchSize: Int { min(32, maxDegreeOfParallelism / 2 + 1) }
    /// Running events below which the next batch is fetched.
    public var newBatchThreshold: Int { maxDegreeOfParallelism - batchSize }
}

/// Settings of storage queues, host.json `extensions.queues`.
public struct QueuesConfiguration: Sendable, Equatable {
    /// `batchSize`: messages taken at once, 1 to 32, default 16.
    public var batchSize = 16
    /// `newBatchThreshold`: running messages below which more are taken, default half of batchSize.
    public var newBatchThreshold = 8
    /// `maxPollingInterval`: the longest pause between looks at an empty queue of another service, default 1 min.
    public var maxPollingInterval = Duration.seconds(60)
    /// `visibilityTimeout`: the pause before a failed message is tried again, default 0.
    public var visibilityTimeout = Duration.zero
    /// `maxDequeueCount`: attempts before a message goes to the poison queue, default 5.
    public var maxDequeueCount = 5
    /// `messageEncoding`: whether bodies are Base64 on the wire, default base64.
    public var isBase64 = true

    public init() {}
}

/// Everything host.json decides.
public struct HostConfiguration: Sendable {
    /// `functionTimeout`: time span, default 30 minutes; nil is without limit (`-1`).
    public var functionTimeout: Duration? = .seconds(1800)
    /// `functions`: the names to load; nil is all.
    public var functions: [String]?
    public var http = HTTPConfiguration()
    public var blobs = BlobsConfiguration()
    public var queues = QueuesConfiguration()
    public var serviceBus = ServiceBusConfiguration()
    /// `retry`: for functions that have none of their own.
    public var retry: RetryPolicy?
    /// `logging.logLevel`.
    public var logLevels = LogLevels()
    /// `watchDirectories` and `watchFiles`: what else restarts functions when it changes.
    public var watchDirectories: [String] = []
    public var watchFiles: [String] = []
    public var fileWatchingEnabled = true
    /// `inferenceCache`: nil when the section is absent.
    public var inferenceCache: InferenceCacheConfiguration?
    /// `azureml.scoreFunction`: which function `/score` and `/swagger.json` stand for.
    public var scoreFunction: String?

    public init() {}

    static let topLevelKeys = [
        "$schema", "version", "functionTimeout", "retry", "functions", "http", "watchDirectories", "watchFiles",
        "queues",
        "serviceBus", "eventHub", "singleton", "logging", "aggregator", "healthMonitor", "extensionBundle",
        "managedDependencies", "managedDependency", "customHandler", "httpWorker", "extensions", "concurrency",
        "sendCanceledInvocationsToWorker", "metadataProviderTimeout", "telemetryMode", "isDefaultHostConfig",
        "fileWatchingEnabled", "configurationProfile", "inferenceCache", "azureml",
    ]
    static let httpKeys = [
        "routePrefix", "maxOutstandingRequests", "maxConcurrentRequests", "dynamicThrottlesEnabled",
        "enableChunkedRequestBinding", "customHeaders", "hsts",
    ]
    static let cacheKeys = [
        "timeToLive", "timeToLiveJitter", "staleWhileRevalidate", "errorTimeToLive", "maxEntries", "maxMemoryBytes",
        "maxEntryBytes", "compressAboveBytes", "singleFlightAcrossHosts", "redisTimeout", "redisConnectTimeout",
        "keyPrefix",
    ]

    static let blobsKeys = ["maxDegreeOfParallelism", "poisonBlobThreshold", "maxBlobBytes", "skipExistingBlobs"]
    static let queuesKeys = [
        "batchSize", "newBatchThreshold", "maxPollingInterval", "visibilityTimeout", "maxDequeueCount",
        "messageEncoding",
    ]

    /// Every key Andiron acts on, as `section.key`, for the reference page's test.
    public static let documentedKeys =
        ["version", "functionTimeout", "functions", "retry", "watchDirectories", "watchFiles", "fileWatchingEnabled"]
        + ["logging.logLevel", "azureml.scoreFunction"]
        + ["routePrefix", "maxOutstandingRequests", "maxConcurrentRequests", "customHeaders"].map {
            "extensions.http.\($0)"
        }
        + cacheKeys.map { "inferenceCache.\($0)" }
        + blobsKeys.map { "extensions.blobs.\($0)" } + queuesKeys.map { "extensions.queues.\($0)" }
        + ServiceBusConfiguration.documentedKeys.map { "extensions.serviceBus.\($0)" }

    /// Reads host.json with the environment's `AzureFunctionsJobHost__…` laid over it.
    ///
    /// - Returns: the configuration with defaults where the file is wrong, and what is wrong; any problem
    ///   that is not a warning keeps functions from running.
    public static func load(
        folder: String, environment: [String: String]
    ) -> (configuration: HostConfiguration, problems: [ConfigurationProblem]) {
        var configuration = HostConfiguration()
        let path = folder + "/host.json"
        let file: ConfigurationFile
        do throws(ConfigurationProblem) {
            guard readFile(path, limit: 1) != nil else {
                throw ConfigurationProblem(
                    "AN2001", "Host.json file is missing. Please make sure host.json file is present at \(folder)",
                    remedy: "create host.json with { \"version\": \"2.0\" }, or start in the function app's folder",
                    place: SourcePlace(file: "host.json"))
            }
            file = try ConfigurationFile(path: path, displayName: "host.json")
        } catch {
            return (configuration, [error])
        }
        var reader = ConfigurationReader(file: file)
        let root = EnvironmentOverlay.apply(environment, to: file.root)
        configuration.read(root, &reader)
        return (configuration, reader.problems)
    }

    private mutating func read(_ root: JSONValue, _ reader: inout ConfigurationReader) {
        reader.checkKeys(of: root, known: Self.topLevelKeys, in: "")
        checkVersion(root, &reader)
        readTimeout(root, &reader)
        functions = reader.texts(root, "functions")
        watchDirectories = reader.texts(root, "watchDirectories") ?? []
        watchFiles = reader.texts(root, "watchFiles") ?? []
        fileWatchingEnabled = reader.flag(root, "fileWatchingEnabled") ?? true
        retry = RetryPolicy.read(root, &reader)
        let extensions = reader.section(root, "extensions")
        readHTTP(extensions, &reader)
        if let section = reader.section(extensions, "blobs", known: Self.blobsKeys) { blobs = .read(section, &reader) }
        if let section = reader.section(extensions, "queues", known: Self.queuesKeys) {
            queues = .read(section, &reader)
        }
        if let section = reader.section(extensions, "serviceBus") { serviceBus = .read(section, &reader) }
        readLogging(reader.section(root, "logging"), &reader)
        if let section = reader.section(root, "inferenceCache", known: Self.cacheKeys) {
            inferenceCache = .read(section, &reader)
        }
        scoreFunction = reader.text(reader.section(root, "azureml", known: ["scoreFunction"]), "scoreFunction")
    }

    private func checkVersion(_ root: JSONValue, _ reader: inout ConfigurationReader) {
        if root.members?.isEmpty == true { return }
        guard let version = reader.text(root, "version") else {
            reader.report(
                "AN2005", "The host.json file is missing the required 'version' property.", at: root,
                remedy: "add \"version\": \"2.0\"")
            return
        }
        if version != "2.0" {
            reader.report(
                "AN2005", "'\(version)' is an invalid value for host.json 'version' property.",
                at: reader.value(root, "version"), remedy: "set the 'version' property to \"2.0\"")
        }
    }

    private mutating func readTimeout(_ root: JSONValue, _ reader: inout ConfigurationReader) {
        if let text = reader.value(root, "functionTimeout")?.string, text == "-1" {
            functionTimeout = nil
        } else if let timeout = reader.duration(root, "functionTimeout", in: .seconds(1) ... .seconds(864_000)) {
            functionTimeout = timeout
        }
    }

    private mutating func readHTTP(_ extensions: JSONValue?, _ reader: inout ConfigurationReader) {
        let section = reader.section(extensions, "http", known: Self.httpKeys)
        http.routePrefix = reader.text(section, "routePrefix") ?? "api"
        let limit = { (reader: inout ConfigurationReader, key: String) in
            reader.integer(section, key, in: -1 ... .max).flatMap { $0 < 0 ? nil : max($0, 1) }
        }
        http.maxOutstandingRequests = limit(&reader, "maxOutstandingRequests")
        http.maxConcurrentRequests = limit(&reader, "maxConcurrentRequests")
        for member in reader.section(section, "customHeaders")?.members ?? [] {
            guard let value = member.value.string else {
                reader.report("AN2003", "the header '\(member.name)' must be a string", at: member.value)
                continue
            }
            http.customHeaders.append(CustomHeader(name: member.name, value: value))
        }
    }

    private mutating func readLogging(_ section: JSONValue?, _ reader: inout ConfigurationReader) {
        for member in reader.section(section, "logLevel")?.members ?? [] {
            let word = member.value.string ?? ""
            if word.caseInsensitiveEquals("None") {
                logLevels.set(member.name, nil)
            } else if let level = EventLevel.allCases.first(where: { $0.name.caseInsensitiveEquals(word) }) {
                logLevels.set(member.name, level)
            } else {
                reader.report(
                    "AN2003", "'\(word)' is not a log level", at: member.value,
                    remedy: "one of Trace, Debug, Information, Warning, Error, Critical, None")
            }
        }
    }
}

extension BlobsConfiguration {
    static func read(_ section: JSONValue, _ reader: inout ConfigurationReader) -> Self {
        var blobs = BlobsConfiguration()
        blobs.maxDegreeOfParallelism =
            reader.integer(section, "maxDegreeOfParallelism", in: 1...10_000) ?? blobs.maxDegreeOfParallelism
        blobs.poisonBlobThreshold =
            reader.integer(section, "poisonBlobThreshold", in: 1...1_000_000) ?? blobs.poisonBlobThreshold
        blobs.maxBlobBytes = reader.integer(section, "maxBlobBytes", in: 1...(512 << 20)) ?? blobs.maxBlobBytes
        blobs.skipExistingBlobs = reader.flag(section, "skipExistingBlobs") ?? false
        return blobs
    }
}

extension QueuesConfiguration {
    static func read(_ section: JSONValue, _ reader: inout ConfigurationReader) -> Self {
        var queues = QueuesConfiguration()
        queues.batchSize = reader.integer(section, "batchSize", in: 1...32) ?? queues.batchSize
        queues.newBatchThreshold =
            reader.integer(section, "newBatchThreshold", in: 0...10_000) ?? queues.batchSize / 2
        queues.maxPollingInterval =
            reader.duration(section, "maxPollingInterval", in: .milliseconds(100) ... .seconds(86_400))
            ?? queues.maxPollingInterval
        queues.visibilityTimeout =
            reader.duration(section, "visibilityTimeout", in: .zero ... .seconds(604_800)) ?? .zero
        queues.maxDequeueCount = reader.integer(section, "maxDequeueCount", in: 1...1_000_000) ?? 5
        if let word = reader.text(section, "messageEncoding") {
            if !["base64", "none"].contains(word.lowercased()) {
                reader.report(
                    "AN2003", "'messageEncoding' is '\(word)'", at: reader.value(section, "messageEncoding"),
                    remedy: "base64 or none")
            }
            queues.isBase64 = word.lowercased() != "none"
        }
        return queues
    }
}

extension InferenceCacheConfiguration {
    static func read(_ section: JSONValue, _ reader: inout ConfigurationReader) -> Self {
        var cache = InferenceCacheConfiguration()
        cache.timeToLive =
            reader.duration(section, "timeToLive", in: .seconds(1) ... .seconds(31_536_000)) ?? cache.timeToLive
        cache.timeToLiveJitter = reader.number(section, "timeToLiveJitter", in: 0...0.9) ?? cache.timeToLiveJitter
        let aYear = Duration.zero ... .seconds(31_536_000)
        cache.staleWhileRevalidate =
            reader.duration(section, "staleWhileRevalidate", in: aYear) ?? cache.staleWhileRevalidate
        cache.errorTimeToLive = reader.duration(section, "errorTimeToLive", in: aYear) ?? cache.errorTimeToLive
        cache.compressAboveBytes =
            reader.integer(section, "compressAboveBytes", in: 0...(1 << 40)) ?? cache.compressAboveBytes
        cache.singleFlightAcrossHosts =
            reader.flag(section, "singleFlightAcrossHosts") ?? cache.singleFlightAcrossHosts
        cache.maxEntries = reader.integer(section, "maxEntries", in: 0...100_000_000) ?? cache.maxEntries
        cache.maxMemoryBytes = reader.integer(section, "maxMemoryBytes", in: 1024...(1 << 40)) ?? cache.maxMemoryBytes
        cache.maxEntryBytes = reader.integer(section, "maxEntryBytes", in: 1...(512 << 20)) ?? cache.maxEntryBytes
        cache.redisTimeout =
            reader.duration(section, "redisTimeout", in: .milliseconds(1) ... .seconds(10)) ?? cache.redisTimeout
        cache.redisConnectTimeout =
            reader.duration(section, "redisConnectTimeout", in: .milliseconds(10) ... .seconds(60))
            ?? cache.redisConnectTimeout
        cache.keyPrefix = reader.text(section, "keyPrefix") ?? cache.keyPrefix
        return cache
    }
}

extension RetryPolicy {
    /// The `retry` section of host.json or function.json.
    static func read(_ parent: JSONValue, _ reader: inout ConfigurationReader) -> RetryPolicy? {
        let keys = ["strategy", "maxRetryCount", "delayInterval", "minimumInterval", "maximumInterval"]
        guard let section = reader.section(parent, "retry", known: keys) else { return nil }
        guard let count = reader.integer(section, "maxRetryCount", in: -1 ... .max) else {
            if reader.value(section, "maxRetryCount") == nil {
                reader.report("AN2003", "'maxRetryCount' is required in 'retry'", at: section, remedy: "-1 is for ever")
            }
            return nil
        }
        let any = Duration.zero ... .seconds(864_000)
        switch reader.text(section, "strategy")?.lowercased() {
        case "fixeddelay":
            guard let delay = reader.duration(section, "delayInterval", in: any) else {
                reader.report("AN2003", "'delayInterval' is required with fixedDelay", at: section)
                return nil
            }
            return .fixedDelay(count: count < 0 ? nil : count, delay: delay)
        case "exponentialbackoff":
            guard let minimum = reader.duration(section, "minimumInterval", in: any),
                let maximum = reader.duration(section, "maximumInterval", in: any)
            else {
                reader.report(
                    "AN2003", "'minimumInterval' and 'maximumInterval' are required with exponentialBackoff",
                    at: section)
                return nil
            }
            return .exponentialBackoff(count: count < 0 ? nil : count, minimum: minimum, maximum: maximum)
        default:
            reader.report(
                "AN2003", "'strategy' must be fixedDelay or exponentialBackoff",
                at: reader.value(section, "strategy") ?? section)
            return nil
        }
    }
}
