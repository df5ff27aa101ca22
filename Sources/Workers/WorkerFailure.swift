/// The failures of workers, as invocations see them.
internal import Bundles
internal import Diagnostics
internal import EventLoops
internal import Invocations
internal import JSONText

/// Codes and words of everything that can go wrong with a worker.
enum WorkerFailure {
    static func startFailed(_ message: String, remedy: String?, detail: String?) -> InvocationFailure {
        InvocationFailure(code: "AN4001", fault: .user, message: message, remedy: remedy, detail: detail)
    }

    /// From the worker's own report of a failed init().
    static func initFailed(_ report: [UInt8], bundle: Bundle) -> InvocationFailure {
        let details = try? JSONParser.parse(report)
        let message = details?["message"]?.string ?? "the entry script could not be started"
        let detail = [details?["traceback"]?.string, details?["tree"]?.string].compactMap { $0 }
            .filter { !$0.isEmpty }.joined(separator: "\n")
        var remedy = "correct \(bundle.entryScript); it is started again when it changes"
        if let missing = details?["missing"]?.string {
            remedy = "add '\(missing)' to the bundle's dependency file"
        }
        return startFailed("init() failed: \(message)", remedy: remedy, detail: detail.isEmpty ? nil : detail)
    }

    static func environment(_ error: BundleError) -> InvocationFailure {
        InvocationFailure(
            code: error.code, fault: error.fault, message: error.message, remedy: error.remedy,
            detail: error.place.map { "\($0)" })
    }

    static func crashed(_ exit: ChildExit, lastLines: [String], mayHaveRun: Bool) -> InvocationFailure {
        let message =
            mayHaveRun
            ? "the worker ended with \(exit) while it ran this request"
            : "the worker ended with \(exit) again and again before it could run this request"
        return InvocationFailure(
            code: "AN4002", fault: .user, message: message,
            remedy: "look for os._exit, a native crash or a kill in the log",
            detail: lastLines.isEmpty ? nil : lastLines.joined(separator: "\n"))
    }

    static func timedOut(_ limit: Duration, name: String) -> InvocationFailure {
        InvocationFailure(
            code: "AN4003", fault: .user, message: "run() took longer than \(limit.inSeconds) s; its worker was ended",
            remedy: "raise \(name), or make run() faster")
    }

    static func overMemory(_ limit: Int, used: Int) -> InvocationFailure {
        InvocationFailure(
            code: "AN4006", fault: .user,
            message: "the worker used \(used >> 20) MB, more than its limit of \(limit >> 20) MB, and was ended",
            remedy: "raise memoryInGB in deploymentconfig.json, or use less")
    }

    static func protocolBroken(_ reason: String) -> InvocationFailure {
        InvocationFailure(
            code: "AN4007", fault: .user,
            message: "the worker wrote something that is no frame (\(reason)) and was ended",
            remedy: "the entry script must not write to descriptor 3")
    }

    static func queueFull(_ limit: Int) -> InvocationFailure {
        InvocationFailure(
            code: "AN4008", fault: .service, message: "\(limit) calls wait for a worker already",
            remedy: "add workers (FUNCTIONS_WORKER_PROCESS_COUNT), or set maxOutstandingRequests", status: 503,
            retryAfterSeconds: 1)
    }

    static func stopping() -> InvocationFailure {
        InvocationFailure(
            code: "AN4009", fault: .host, message: "the host is shutting down", status: 503, retryAfterSeconds: 1)
    }
}
