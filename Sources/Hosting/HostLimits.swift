/// The limits a person may set by app settings; docs/reference/app-settings.md lists them with their defaults.
internal import ConfigurationFiles
internal import FunctionApps
internal import HTTPServers
internal import Workers

/// Limits as the settings give them, and what is wrong with those that were not taken.
struct HostLimits {
    private(set) var http = HTTPLimits()
    /// Calls of one function that may wait for a worker.
    private(set) var workerQueue = WorkerPoolSettings.defaultQueueLimit
    /// How long a worker may take to start.
    private(set) var workerStart = WorkerPoolSettings.defaultStartTimeout
    private(set) var problems: [ConfigurationProblem] = []

    init(_ settings: AppSettings) {
        take(settings["FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"], "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT") {
            $0.http.bodyByteCount = $1
        }
        take(settings["ANDIRON_HTTP_CONNECTIONS"], "ANDIRON_HTTP_CONNECTIONS") { $0.http.connectionCount = $1 }
        take(settings["ANDIRON_HTTP_HEAD_SECONDS"], "ANDIRON_HTTP_HEAD_SECONDS") {
            $0.http.headTimeout = .seconds($1)
        }
        take(settings["ANDIRON_HTTP_BODY_SECONDS"], "ANDIRON_HTTP_BODY_SECONDS") {
            $0.http.bodyTimeout = .seconds($1)
        }
        take(settings["ANDIRON_HTTP_IDLE_SECONDS"], "ANDIRON_HTTP_IDLE_SECONDS") {
            $0.http.idleTimeout = .seconds($1)
        }
        take(settings["ANDIRON_HTTP_WRITE_SECONDS"], "ANDIRON_HTTP_WRITE_SECONDS") {
            $0.http.writeTimeout = .seconds($1)
        }
        take(settings["ANDIRON_WORKER_QUEUE"], "ANDIRON_WORKER_QUEUE") { $0.workerQueue = $1 }
        take(settings["ANDIRON_WORKER_START_SECONDS"], "ANDIRON_WORKER_START_SECONDS") {
            $0.workerStart = .seconds($1)
        }
    }

    private mutating func take(_ text: String?, _ name: String, _ use: (inout HostLimits, Int) -> Void) {
        guard let text else { return }
        guard let value = Int(text), value > 0, value <= 1 << 40 else {
            problems.append(
                ConfigurationProblem(
                    "AN2003", "the app setting \(name) is '\(text)', which is no whole number above 0",
                    remedy: "the default is used until it is corrected", isWarning: true))
            return
        }
        use(&self, value)
    }
}
