/// What the host does for an app that comes from an image.
internal import Scoring
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
public import FunctionApps
internal import Invocations

/// Why an app is not warm.
struct WarmUpFailure {
    let message: String
    /// The time was over, and nothing else is known to be wrong.
    let isTime: Bool
}

extension FunctionHost {
    /// How often a start that lasts is mentioned.
    private static let mentionInterval = Duration.seconds(15)

    /// Whether the app in a folder comes from an image: no host.json, and settings that name one.
    public nonisolated static func comesFromImage(_ folder: String, _ environment: [String: String]) -> Bool {
        ImageApp.isWanted(folder: folder, environment: environment)
    }

    /// The app in a folder as far as the disk knows it: one from an image has settings, which are checked, and no functions.
    public nonisolated static func appOnDisk(_ folder: String, _ environment: [String: String]) -> FunctionApp {
        guard comesFromImage(folder, environment) else {
            return FunctionApp.load(folder: folder, environment: environment)
        }
        let app = FunctionApp.awaitingImage(folder: folder, environment: environment)
        var problems = app.problems
        _ = ContainerSettings(app.settings, folder: folder, problems: &problems)
        return app.with(problems: problems)
    }

    func report(_ problems: [ConfigurationProblem]) {
        for problem in problems {
            log(
                HostEvent(
                    .configError, problem.isWarning ? .warning : .error, problem.text, [("code", .text(problem.code))]))
        }
    }

    /// Reads the app with its functions from `content`.
    func loadApp(content: AppContent?) -> FunctionApp {
        FunctionApp.load(
            folder: options.folder, environment: options.environment, only: options.functions, content: content)
    }

    /// Starts the workers of an app beside those that run, and waits until every function is ready or cannot be.
    func warmUp(
        _ app: FunctionApp, atMost limit: Duration, waiting: @escaping @EventLoop () -> Void
    ) async -> (runtimes: [FunctionRuntime], failure: WarmUpFailure?) {
        let runtimes = makeRuntimes(of: app)
        var failure: WarmUpFailure?
        let settled = Gate()
        let timer = LoopTimer {
            failure = failure ?? WarmUpFailure(message: "not ready after \(Int(limit.inSeconds)) s", isTime: true)
            settled.open()
        }
        timer.start(after: limit)
        let mention = LoopTimer { waiting() }
        mention.start(after: Self.mentionInterval, every: Self.mentionInterval)
        loopTask {
            for runtime in runtimes where !runtime.metadata.isDisabled {
                do throws(InvocationFailure) {
                    _ = try await runtime.python?.waitForReport()
                } catch {
                    failure =
                        failure
                        ?? WarmUpFailure(message: "\(runtime.metadata.name): \(error.message)", isTime: false)
                }
            }
            settled.open()
        }
        await settled.wait()
        timer.stop()
        mention.stop()
        return (runtimes, failure)
    }

    /// app settings have changed: they are read again, and what depends on them is recycled.
    func settingsChanged() {
        log.log(.information, "Recycling container because of AppSettingsChange and isMainSite = True")
        if let imageApp {
            imageApp.begin()
        } else {
            reload()
        }
    }
}
