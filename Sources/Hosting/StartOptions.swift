/// What the command line decides about a host.

/// Options of `andiron start`.
public struct StartOptions: Sendable {
    /// The function app's folder, absolute.
    public var folder: String
    /// 0 is any free port; nil leaves it to local.settings.json, then 7071.
    public var port: Int?
    /// nil leaves it to local.settings.json, then 127.0.0.1.
    public var address: String?
    /// Names of the functions to load; nil is all.
    public var functions: [String]?
    public var enablesAuth = false
    /// Origins; nil leaves it to local.settings.json.
    public var corsOrigins: [String]?
    public var corsCredentials = false
    /// Failures have the Functions host's empty body.
    public var isStrict = false
    public var broker = BrokerOptions()
    /// How long running work may take to finish on shutdown.
    /// nil: the app's `WEBSITES_CONTAINER_STOP_TIME_LIMIT`, else ``defaultShutdownTimeout``.
    public var shutdownTimeout: Duration?
    public static let defaultShutdownTimeout = Duration.seconds(25)
    /// Where logs, keys and state lie.
    public var stateFolder: String
    /// Whether triggers other than HTTP take events.
    public var listens = true
    /// Ports of the Blob and Queue services; nil is the emulators' (any free one when `port` is 0), negative is none.
    public var blobPort: Int?
    public var queuePort: Int?
    /// The storage account's folder; nil is `storage` in the app's folder.
    public var storageFolder: String?
    /// Where environments and the worker program lie.
    public var cacheFolder: String
    /// The process environment.
    public var environment: [String: String]
    public var version: String

    /// The Functions CLI's port.
    public static let defaultPort = 7071

    public init(
        folder: String, stateFolder: String, cacheFolder: String, environment: [String: String], version: String
    ) {
        self.folder = folder
        self.stateFolder = stateFolder
        self.cacheFolder = cacheFolder
        self.environment = environment
        self.version = version
    }
}
