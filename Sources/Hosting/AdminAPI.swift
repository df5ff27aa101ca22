/// The Functions host's admin API below `/admin/`.
///
/// Paths, statuses and JSON shapes are those of HostController, FunctionsController and KeysController; see
/// `docs/reference/admin-api.md`.
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import Glibc
internal import HTTPMessages
internal import HTTPServers
internal import Invocations
internal import JSONText
internal import Scoring
internal import Triggers
internal import Workers

/// Needs the master key when keys are on; `ping` never does.
@EventLoop
final class AdminAPI {
    unowned let host: FunctionHost
    private let keys: AdminKeysAPI

    init(host: FunctionHost) {
        self.host = host
        keys = AdminKeysAPI(host: host)
    }

    func respond(to request: HTTPRequest) -> HTTPResponse {
        let head = request.head
        let path = PercentCoding.decode(head.path) ?? ""
        let parts = path.split(separator: "/").dropFirst().map(String.init)
        if parts == ["host", "ping"], head.isMethod("GET") || head.isMethod("POST") {
            var response = HTTPResponse(status: 200)
            response.fields.add("Cache-Control", "no-store")
            return response
        }
        if let refusal = refusal(head) { return refusal }
        switch (parts.first, parts.count) {
        case ("host", 2...): return hostRequest(request, Array(parts.dropFirst()))
        case ("functions", _): return functionsRequest(request, Array(parts.dropFirst()))
        case ("warmup", 1): return HTTPResponse(status: 200)
        default: return HTTPResponse(status: 404)
        }
    }

    /// Why a caller may not use the admin API; nil when it may.
    func refusal(_ head: RequestHead) -> HTTPResponse? {
        // A page of another origin, or one that has rebound its name to this machine, must not drive the host.
        guard isLocalName(head.value("host") ?? "") else {
            return errorResponse(
                403, code: "AN3002", "the Host header '\(head.value("host") ?? "")' is not this machine's",
                remedy: "use localhost or the bound address")
        }
        if host.options.enablesAuth, callerLevel(head, host.keys, function: "") != .admin {
            return HTTPResponse(status: 401)
        }
        return nil
    }

    private func isLocalName(_ value: String) -> Bool {
        if host.address == "0.0.0.0" || host.address == "::" { return true }
        let name =
            value.hasPrefix("[") ? String(value.prefix { $0 != "]" }.dropFirst()) : String(value.prefix { $0 != ":" })
        return ["localhost", "127.0.0.1", "::1", host.address].contains(name.lowercased())
            || name.lowercased().hasSuffix(".localhost")
    }

    // MARK: /admin/host

    private func hostRequest(_ request: HTTPRequest, _ parts: [String]) -> HTTPResponse {
        let head = request.head
        let isGet = head.isMethod("GET")
        let isPost = head.isMethod("POST")
        switch parts {
        case ["status"] where isGet: return .json(200, status())
        case ["drain"] where isPost:
            host.drain()
            return HTTPResponse(status: 202)
        case ["drain", "status"] where isGet:
            return .json(
                200,
                jsonObject { writer in
                    writer.member("state", host.drainState.rawValue)
                    writer.member("outstandingInvocations", host.dispatcher.inFlight)
                    writer.member("outstandingRetries", 0)
                })
        case ["resume"] where isPost:
            guard host.state == .running else { return HTTPResponse(status: 409) }
            host.resume()
            return .json(200, Array(#"{"state":"Running"}"#.utf8))
        case ["restart"] where isPost:
            host.reload()
            return .json(200, restartOptions())
        case ["synctriggers"] where isPost: return .json(200, Array(#"{"status":"success"}"#.utf8))
        case ["state"] where head.isMethod("PUT"): return setState(request.body)
        case ["log"] where isPost: return log(request.body)
        case ["config"] where isGet: return .json(200, configuration())
        case ["processes"] where isGet: return .json(200, processes())
        default: return keys.respond(to: request, parts: parts) ?? HTTPResponse(status: 404)
        }
    }

    private func status() -> [UInt8] {
        jsonObject { writer in
            writer.member("id", host.hostID)
            writer.member("state", host.state.rawValue)
            writer.member("version", "4.\(host.options.version)")
            writer.member("versionDetails", "andiron \(host.options.version)")
            writer.member("instanceId", "\(getpid())")
            writer.member("computerName", machineName())
            writer.member("processUptime", Int((monotonicNanoseconds() - host.startedAt) / 1_000_000))
            writer.member("functionAppContentEditingState", "Unknown")
            let errors = host.app.problems.filter { !$0.isWarning }
            if host.state == .error, !errors.isEmpty {
                writer.name("errors")
                writer.beginArray()
                for error in errors {
                    writer.string("\(error.code) \(error.place.map { "\($0): " } ?? "")\(error.message)")
                }
                writer.endArray()
            }
        }
    }

    private func restartOptions() -> [UInt8] {
        jsonObject { writer in
            writer.member("isSelfHost", true)
            writer.member("secretsPath", host.options.stateFolder + "/secrets")
            writer.member("scriptPath", host.options.folder)
            writer.member("logPath", host.logPath)
            writer.member("isStandbyConfiguration", false)
            writer.member("isFileSystemReadOnly", false)
        }
    }

    private func setState(_ body: [UInt8]) -> HTTPResponse {
        switch (try? JSONParser.parse(body))?.string?.lowercased() {
        case "running":
            if host.state != .offline { return HTTPResponse(status: 200) }
            host.setOffline(false)
        case "offline":
            if host.state == .offline { return HTTPResponse(status: 200) }
            host.setOffline(true)
        default: return HTTPResponse(status: 400)
        }
        return HTTPResponse(status: 202)
    }

    private func log(_ body: [UInt8]) -> HTTPResponse {
        guard let entries = (try? JSONParser.parse(body))?.elements else {
            return .text(400, "An array of log entry objects is expected.")
        }
        for entry in entries {
            let word = entry["level"]?.string ?? ""
            let level = EventLevel.allCases.first { $0.name.caseInsensitiveEquals(word) } ?? .information
            var fields: [(String, HostEvent.Value)] = []
            if let name = entry["functionName"]?.string { fields.append(("function", .text(name))) }
            if let source = entry["source"]?.string { fields.append(("source", .text(source))) }
            host.log.log(level, entry["message"]?.string ?? "", fields)
        }
        return HTTPResponse(status: 200)
    }

    private func configuration() -> [UInt8] {
        let configuration = host.app.configuration
        return jsonObject { writer in
            writer.member("version", "2.0")
            writer.member("functionTimeout", configuration.functionTimeout.map(timeSpan) ?? "-1")
            writer.name("http")
            writer.beginObject()
            writer.member("routePrefix", configuration.http.routePrefix)
            writer.member("maxOutstandingRequests", configuration.http.maxOutstandingRequests ?? -1)
            writer.member("maxConcurrentRequests", configuration.http.maxConcurrentRequests ?? -1)
            writer.endObject()
            writer.name("blobs")
            writer.beginObject()
            writer.member("maxDegreeOfParallelism", configuration.blobs.maxDegreeOfParallelism)
            writer.member("batchSize", configuration.blobs.batchSize)
            writer.member("newBatchThreshold", configuration.blobs.newBatchThreshold)
            writer.member("poisonBlobThreshold", configuration.blobs.poisonBlobThreshold)
            writer.endObject()
        }
    }

    private func timeSpan(_ duration: Duration) -> String {
        let seconds = Int(duration.components.seconds)
        let pad = { (number: Int) in number < 10 ? "0\(number)" : "\(number)" }
        return "\(pad(seconds / 3600)):\(pad(seconds / 60 % 60)):\(pad(seconds % 60))"
    }

    private func processes() -> [UInt8] {
        jsonObject { writer in
            writer.name("processes")
            writer.beginArray()
            for pid in [getpid()] + host.workerPIDs {
                writer.beginObject()
                writer.member("processId", pid)
                writer.member("processName", pid == getpid() ? "andiron" : "python")
                writer.member("debugEngine", "")
                writer.member("isEligibleForOpenInBrowser", false)
                writer.endObject()
            }
            writer.endArray()
        }
    }

    // MARK: /admin/functions

    private func functionsRequest(_ request: HTTPRequest, _ parts: [String]) -> HTTPResponse {
        let head = request.head
        if parts.isEmpty, head.isMethod("GET") {
            var writer = JSONWriter()
            writer.beginArray()
            for runtime in host.runtimes { write(runtime.metadata, into: &writer) }
            writer.endArray()
            return .json(200, writer.bytes)
        }
        guard let name = parts.first else { return HTTPResponse(status: 404) }
        if let response = keys.respond(to: request, parts: parts) { return response }
        if parts.count == 2, parts[1] == "status", head.isMethod("GET") { return functionStatus(name) }
        guard parts.count == 1, let runtime = runtime(name) else { return HTTPResponse(status: 404) }
        if head.isMethod("GET") {
            var writer = JSONWriter()
            write(runtime.metadata, into: &writer)
            return .json(200, writer.bytes)
        }
        return head.isMethod("POST") ? invoke(runtime, request.body) : HTTPResponse(status: 405)
    }

    private func runtime(_ name: String) -> FunctionRuntime? {
        host.runtimes.first { $0.metadata.name.caseInsensitiveEquals(name) }
    }

    private func functionStatus(_ name: String) -> HTTPResponse {
        if let broken = host.app.broken.first(where: { $0.name.caseInsensitiveEquals(name) }) {
            return .json(
                200,
                errorList(
                    broken.problems.filter { !$0.isWarning }.map {
                        "\($0.code) \($0.place.map { "\($0): " } ?? "")\($0.message)"
                    }))
        }
        guard let runtime = runtime(name) else { return HTTPResponse(status: 404) }
        if let failure = runtime.python?.loadFailure ?? runtime.python?.pool?.startFailure {
            return .json(200, errorList(["\(failure.code) \(failure.message)"] + (failure.detail.map { [$0] } ?? [])))
        }
        return .json(200, Array("{}".utf8))
    }

    private func errorList(_ errors: [String]) -> [UInt8] {
        jsonObject { writer in
            writer.name("errors")
            writer.beginArray()
            for error in errors { writer.string(error) }
            writer.endArray()
        }
    }

    private func write(_ function: FunctionMetadata, into writer: inout JSONWriter) {
        let files = host.url + "/admin/vfs/" + relativePath(function.folder, to: host.options.folder)
        writer.beginObject()
        writer.member("name", function.name)
        writer.member("script_root_path_href", files + "/")
        writer.name("script_href")
        writer.null()
        writer.member("config_href", files + "/function.json")
        writer.name("test_data_href")
        writer.null()
        writer.member("href", "\(host.url)/admin/functions/\(function.name)")
        writer.name("invoke_url_template")
        if let url = host.url(of: function) { writer.string(url.lowercased()) } else { writer.null() }
        writer.member("language", function.isBuiltIn ? "builtin" : "python")
        writer.name("config")
        writer.value(function.configuration)
        writer.name("files")
        writer.null()
        writer.member("test_data", "")
        writer.member("isDisabled", function.isDisabled)
        writer.member("isDirect", false)
        writer.member("isProxy", false)
        writer.endObject()
    }

    /// Starts the function and answers at once; the outcome is in the log.
    private func invoke(_ runtime: FunctionRuntime, _ body: [UInt8]) -> HTTPResponse {
        guard let input = (try? JSONParser.parse(body))?["input"]?.string else {
            return errorResponse(400, code: "AN3003", "the body must be {\"input\": \"<string>\"}")
        }
        guard host.state == .running, host.drainState == .disabled else { return HTTPResponse(status: 503) }
        let id = host.trigger?.newInvocationID() ?? newInvocationID()
        let now = monotonicNanoseconds()
        let event = TriggerEvent(trigger: "admin", body: Array(input.utf8))
        let invocation = Invocation(
            id: id, functionName: runtime.metadata.name, event: event, stages: StageTimes(entering: .bind, at: now))
        host.log.log(
            .information, "This function was programmatically called via the host APIs.",
            [("function", .text(runtime.metadata.name)), ("invocation_id", .text("\(id)"))])
        loopTask { [host] in _ = await host.dispatcher.dispatch(invocation).value() }
        return HTTPResponse(status: 202)
    }

    private func newInvocationID() -> InvocationID {
        var random = RandomBytes()
        return InvocationID(from: &random)
    }
}
