/// `andiron start`: runs a function app until it is told to stop.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import FunctionApps
import Glibc
import Hosting
import JSONText

struct Start: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run a function app.",
        discussion: """
            Examples:
              andiron start
              andiron start my-app --port 0 --ready-file ready.json
            """,
        aliases: ["run", "serve"])

    @OptionGroup var location: AppLocation

    @Option(name: [.short, .long], help: "Port to listen on; 0 is any free one (default: 7071).")
    var port: Int?

    @Option(help: "IP address to listen on (default: 127.0.0.1).")
    var address: String?

    @Option(parsing: .upToNextOption, help: "Names of the functions to load (default: all).")
    var functions: [String] = []

    @Flag(name: [.customLong("enable-auth"), .customLong("enableAuth")], help: "Demand function keys, as in Azure.")
    var enableAuth = false

    @Option(help: "Allowed origins, separated by commas; * is any.")
    var cors: String?

    @Flag(name: [.customLong("cors-credentials")], help: "Allow cookies in cross-origin requests.")
    var corsCredentials = false

    @Option(help: "compact, plain or json.")
    var output: String = OutputFormat.compact.rawValue

    @Option(help: "Write a JSON file with url, port, pid and the other endpoints when ready.")
    var readyFile: String?

    @Option(
        name: [.customLong("servicebus-port")],
        help: "Port of the Service Bus broker; 0 is any free one (default: 5672, when a function needs it).")
    var servicebusPort: Int?

    @Option(
        name: [.customLong("servicebus-config")],
        help: "Queues and topics, as a Config.json of Microsoft's emulator (default: Config.json in the app).")
    var servicebusConfig: String?

    @Flag(name: [.customLong("servicebus-memory")], help: "Keep the broker's messages in memory only.")
    var servicebusMemory = false

    @Option(
        help:
            "Seconds that running work may take to finish on shutdown (default: WEBSITES_CONTAINER_STOP_TIME_LIMIT of an app from an image, else 25)."
    )
    var shutdownTimeout: Double?

    @Flag(help: "Give failures the Functions host's empty body.")
    var strict = false

    @Option(help: "Folder of the storage account: containers, receipts, queues (default: storage in the app).")
    var storage: String?

    @Option(
        parsing: .unconditional, help: "Port of the storage folder's Blob service; 0 is any free one (default: 10000).")
    var blobPort: Int?

    @Option(
        parsing: .unconditional, help: "Port of the storage folder's Queue service; 0 is any free one (default: 10001)."
    )
    var queuePort: Int?

    @Option(help: "Write every record as NDJSON to this file as well.")
    var logFile: String?

    @Flag(name: [.short, .long], help: "Show what the host does itself.")
    var verbose = false

    func validate() throws {
        if OutputFormat(rawValue: output) == nil {
            throw ValidationError("--output is '\(output)'; it is compact, plain or json.")
        }
        if let port, !(0...65535).contains(port) { throw ValidationError("--port is \(port); it is 0 to 65535.") }
        if let servicebusPort, !(0...65535).contains(servicebusPort) {
            throw ValidationError("--servicebus-port is \(servicebusPort); it is 0 to 65535.")
        }
        if let shutdownTimeout, !(0...86400).contains(shutdownTimeout) {
            throw ValidationError("--shutdown-timeout is \(shutdownTimeout); it is 0 to 86400 seconds.")
        }
    }

    func run() throws {
        let folder = location.folder()
        let environment = processEnvironment()
        guard access(folder + "/host.json", F_OK) == 0 || FunctionHost.comesFromImage(folder, environment) else {
            complain(
                "error[AN2001]: Host.json file is missing. Please make sure host.json file is present at \(folder)")
            complain("  try: andiron start FOLDER, or create host.json with { \"version\": \"2.0\" }")
            Glibc.exit(ExitStatus.missingFile.rawValue)
        }
        raiseDescriptorLimit()
        runLoop { await serve(folder) }
    }

    /// How long the code that only starting needs stays mapped.
    private static let startUpCodeIsKept = Duration.seconds(1)

    @EventLoop
    private func serve(_ folder: String) async -> ExitStatus {
        var options = StartOptions(
            folder: folder, stateFolder: location.state(of: folder), cacheFolder: AppLocation.cacheFolder(),
            environment: processEnvironment(), version: Andiron.version)
        options.port = port
        options.address = address
        options.functions = functions.isEmpty ? nil : functions
        options.enablesAuth = enableAuth
        options.corsOrigins = cors.map { [$0] }
        options.corsCredentials = corsCredentials
        options.isStrict = strict
        options.blobPort = blobPort
        options.queuePort = queuePort
        options.storageFolder = storage.map { absolutePath($0, in: currentFolder()) }
        options.broker.port = servicebusPort
        options.broker.configurationFile = servicebusConfig.map { absolutePath($0, in: currentFolder()) }
        options.broker.isInMemory = servicebusMemory
        options.shutdownTimeout = shutdownTimeout.map { .milliseconds(Int($0 * 1000)) }
        let format = OutputFormat(rawValue: output) ?? .compact
        let writer = LineWriter(descriptor: 1)
        let console = ConsoleSink(
            writer: writer, format: format, minimumLevel: verbose ? .debug : .information,
            usesColor: format == .compact && wantsColor())
        let logPath = logFile.map { absolutePath($0, in: currentFolder()) } ?? options.stateFolder + "/logs/host.ndjson"
        let file: LogFileSink
        do throws(SystemError) {
            file = try LogFileSink(path: logPath, includesSuccesses: logFile != nil)
        } catch {
            complain("\(error)\n  try: --state-folder FOLDER, or free some space")
            return .cannotCreate
        }
        let host = FunctionHost(options: options, log: EventLog([console, file]), logPath: logPath)
        let ended = Gate()
        let signals = catchSignals(host, ended, writer)
        do throws(SystemError) {
            try host.start()
        } catch {
            let requested = port ?? host.app.localHost.port ?? StartOptions.defaultPort
            writer.close()
            complain(startFailure(error, port: requested))
            return error.symbol == "EADDRINUSE" ? .unavailable : .cannotCreate
        }
        let announce = { @EventLoop in
            if format != .json { writer.append(Array(banner(host).utf8)) }
            guard let readyFile else { return }
            do throws(SystemError) {
                try writeFileAtomically(absolutePath(readyFile, in: currentFolder()), readyDocument(host))
            } catch {
                complain("\(error)")
            }
        }
        switch host.state {
        case .starting:
            // The image is on its way; the port answers already.
            if format != .json {
                writer.append(
                    Array("\nAndiron \(Andiron.version) at \(host.url), waiting for \(host.imageName ?? "")\n".utf8))
                if isatty(1) == 1 {
                    let display = PullDisplay(terminal: writer)
                    host.pullObserver = { event in event.map(display.show) ?? display.finish() }
                }
            }
            host.becameReady = announce
        case .running: announce()
        default: if format != .json { writer.append(Array(banner(host).utf8)) }
        }
        let tidying = LoopTimer { releaseStartUpCode() }
        tidying.start(after: Self.startUpCodeIsKept)
        await ended.wait()
        await host.stop()
        withExtendedLifetime((signals, tidying)) {}
        console.finish()
        file.close()
        writer.close()
        if let readyFile { unlink(absolutePath(readyFile, in: currentFolder())) }
        return .done
    }

    @EventLoop
    private func catchSignals(_ host: FunctionHost, _ ended: Gate, _ writer: LineWriter) -> [SignalSource] {
        let stop = { @EventLoop (signal: Int32) in
            if ended.isOpen {
                // The second one: end now, and take the workers along.
                for pid in host.workerPIDs { kill(-pid, SIGKILL) }
                Glibc.exit(128 + signal)
            }
            if output != OutputFormat.json.rawValue {
                writer.append(Array("Stopping: running work may finish; once more to end at once.\n".utf8))
            }
            ended.open()
        }
        return [
            SignalSource(SIGTERM) { stop(SIGTERM) }, SignalSource(SIGINT) { stop(SIGINT) },
            SignalSource(SIGHUP) { host.reload() },
        ]
    }

    private func wantsColor() -> Bool {
        let environment = processEnvironment()
        if environment["NO_COLOR"]?.isEmpty == false || environment["TERM"] == "dumb" { return false }
        if environment["FORCE_COLOR"]?.isEmpty == false || environment["CLICOLOR_FORCE"]?.isEmpty == false {
            return true
        }
        return isatty(1) == 1
    }

    /// 10 000 connections need as many descriptors; the soft limit is often 1 024.
    private func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}
