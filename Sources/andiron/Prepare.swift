/// `andiron prepare`: builds the Python environments of an app ahead of its first start.
import ArgumentParser
import Bundles
import Diagnostics
import EventLoops
import FunctionApps
import Glibc
import Hosting
import Invocations

struct Prepare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Build the Python environments of an app, so that its first start needs no network.",
        discussion: """
            Examples:
              andiron prepare
              andiron prepare my-app
            """)

    @OptionGroup var location: AppLocation

    func run() throws {
        let folder = location.folder()
        runLoop { await prepare(folder) }
    }

    @EventLoop
    private func prepare(_ folder: String) async -> ExitStatus {
        let environment = processEnvironment()
        let app = FunctionApp.load(folder: folder, environment: environment)
        let writer = LineWriter(descriptor: 1)
        let console = ConsoleSink(writer: writer, format: .compact, minimumLevel: .information, usesColor: false)
        let log = EventLog([console])
        let environments = PythonEnvironments(
            cacheFolder: AppLocation.cacheFolder(), python: app.settings["ANDIRON_PYTHON"] ?? "python3", log: log)
        var status = ExitStatus.done
        for function in app.functions {
            guard case .bundle(let bundleFolder, let script) = function.entryPoint else { continue }
            do throws(BundleError) {
                let bundle = try Bundle.load(folder: bundleFolder, script: script)
                let python = try await environments.interpreter(for: bundle.dependencies, environment: environment)
                log.log(
                    .information, "environment ready", [("function", .text(function.name)), ("python", .text(python))])
            } catch {
                log.log(.error, error.description, [("function", .text(function.name))])
                status = .failed
            }
        }
        writer.close()
        return status
    }
}
