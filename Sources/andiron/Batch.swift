/// `andiron batch`: scores a folder of files.
internal import Invocations
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import FunctionApps
import Hosting
import StorageAccounts

struct Batch: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Score every file of a folder with a function.",
        discussion: """
            Each result has the name of its file. A run that was ended goes on where it was: what has a result is left \
            alone until its file changes.

            Examples:
              andiron batch DigitsScore --input digits --output scored
            """)

    @Argument(help: "The function's name.")
    var function: String

    @Option(help: "The folder with the files.")
    var input: String

    @Option(help: "The folder for the results.")
    var output: String

    @Option(help: "Worker processes (default: one for each core).")
    var workers: Int?

    @Option(name: [.customLong("app")], help: "The function app's folder (default: the nearest with a host.json).")
    var app: String?

    func validate() throws {
        if let workers, !(1...10).contains(workers) { throw ValidationError("--workers is \(workers); it is 1 to 10.") }
    }

    func run() throws {
        let source = absolutePath(input, in: currentFolder())
        let target = absolutePath(output, in: currentFolder())
        guard isFolder(source) else {
            complain("error[AN1005]: the folder '\(input)' cannot be read (\(source))")
            Glibc.exit(ExitStatus.missingFile.rawValue)
        }
        if target == source || target.hasPrefix(source + "/") {
            throw ValidationError("--output is inside --input; the results would be scored too.")
        }
        let command = self
        runLoop { await command.score(source, target) }
    }

    @EventLoop
    private func score(_ source: String, _ target: String) async -> ExitStatus {
        var location = AppLocation()
        location.path = app
        location.scriptRoot = nil
        location.stateFolder = nil
        let folder = location.folder()
        let workerCount = workers ?? min(10, max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))))
        var environment = processEnvironment()
        environment["FUNCTIONS_WORKER_PROCESS_COUNT"] = "\(workerCount)"
        var options = StartOptions(
            folder: folder, stateFolder: location.state(of: folder), cacheFolder: AppLocation.cacheFolder(),
            environment: environment, version: Andiron.version)
        options.port = 0
        options.functions = [function]
        options.listens = false
        let writer = LineWriter(descriptor: 2)
        let console = ConsoleSink(writer: writer, format: .compact, minimumLevel: .warning, usesColor: false)
        let host = FunctionHost(options: options, log: EventLog([console]), logPath: "")
        do throws(SystemError) {
            try createFolders(target)
            try host.start()
        } catch {
            writer.close()
            complain(error.description)
            return .cannotCreate
        }
        guard let name = host.runtimes.first?.metadata.name else {
            await host.stop()
            writer.close()
            complain("error[AN2013]: there is no function '\(function)' in \(folder)")
            return .badConfiguration
        }
        let run = BatchRun(
            host: host, functionName: name, folders: BatchFolders(input: source, output: target),
            workerCount: workerCount)
        let signals = [SignalSource(SIGINT) { run.stop() }, SignalSource(SIGTERM) { run.stop() }]
        let display = BatchDisplay(isTerminal: isatty(1) == 1)
        let timer = LoopTimer { display.show(run.progress) }
        timer.start(after: display.interval, every: display.interval)
        await run.run()
        timer.stop()
        withExtendedLifetime(signals) {}
        display.finish(run.progress)
        await host.stop()
        writer.close()
        let progress = run.progress
        return progress.failed > 0 || progress.finished < progress.total ? .failed : .done
    }
}

/// A bar on a terminal; elsewhere a line every two seconds.
@EventLoop
final class BatchDisplay {
    private let isTerminal: Bool
    private var last = -1

    init(isTerminal: Bool) { self.isTerminal = isTerminal }

    var interval: Duration { isTerminal ? .milliseconds(100) : .seconds(2) }

    func show(_ progress: BatchProgress) {
        guard progress.finished != last, progress.total > 0 else { return }
        last = progress.finished
        outputText(isTerminal ? "\r" + bar(progress) : line(progress) + "\n")
    }

    func finish(_ progress: BatchProgress) {
        if isTerminal { outputText("\r" + bar(progress) + "\n") }
        outputText(
            """
            \(progress.scored) scored, \(progress.failed) failed, \(progress.skipped) done before, of \(progress.total) \
            files, in \(rounded(progress.seconds)) s (\(rounded(progress.perSecond)) a second, \
            \(progress.inputByteCount) bytes)

            """)
        if progress.finished < progress.total { outputText("stopped: run it again to go on\n") }
    }

    private func bar(_ progress: BatchProgress) -> String {
        let width = 30
        let filled = progress.total == 0 ? width : progress.finished * width / progress.total
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
        return "\(bar) \(line(progress))\u{1B}[K"
    }

    private func line(_ progress: BatchProgress) -> String {
        let left = progress.perSecond > 0 ? Double(progress.total - progress.finished) / progress.perSecond : 0
        let failed = progress.failed > 0 ? ", \(progress.failed) failed" : ""
        return
            "\(progress.finished)/\(progress.total)\(failed), \(rounded(progress.perSecond)) a second, \(rounded(left)) s left"
    }

    private func rounded(_ number: Double) -> String { "\((number * 10).rounded() / 10)" }
}
