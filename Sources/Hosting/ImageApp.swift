/// An app whose functions come from an image: its cold start, its updates, and what went wrong.
internal import Scoring
internal import Workers
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import Glibc
internal import HTTPClients
internal import Images
internal import Invocations

/// Pulls the image the settings name and puts it to work; an update keeps the old one serving until then.
@EventLoop
final class ImageApp {
    /// What the settings asked for, and how it went.
    enum State {
        case starting
        case running(PulledImage)
        /// Something must be set before it can start.
        case inactive(String)
        case failed(ImageError)
    }

    private unowned let host: FunctionHost
    private let log: EventLog
    private let store: ContentStore
    private let http = HTTPClient()
    private(set) var state = State.starting
    private(set) var settings: ContainerSettings?
    /// Where host.json and the functions are; nil until an image is here.
    private(set) var content: AppContent?
    private(set) var coldStart = ColdStartReport()
    private var puller: ImagePuller?
    private var pullDeadline: UInt64 = 0
    private var mustRepeat = false
    private var isWorking = false
    private var isStopped = false
    private var retryTimer: LoopTimer?
    private var failuresInARow = 0
    /// Held while the image is used, so that nobody deletes it.
    private var useLock: Int32 = -1
    private var changed = Gate()
    /// The tree that is in use, and the one that was made last.
    private var tree: String?
    private var newTree: String?
    private var treeCount = 0

    /// Minutes a failing start is left alone, the first time and after.
    private static let backOff = [Duration.seconds(60), .seconds(120)]

    init(host: FunctionHost, log: EventLog) {
        self.host = host
        self.log = log
        store = ContentStore(cacheFolder: host.options.cacheFolder)
        retryTimer = LoopTimer { [unowned self] in begin() }
    }

    /// Whether a folder is such an app: no host.json, and settings that name an image.
    nonisolated static func isWanted(folder: String, environment: [String: String]) -> Bool {
        guard access(folder + "/host.json", F_OK) != 0 else { return false }
        return ContainerSettings.imageName(in: loadAppSettings(folder: folder, environment: environment).settings)
            != nil
    }

    // MARK: Life

    /// Starts, or starts again with what the settings say now.
    func begin() {
        retryTimer?.stop()
        if isWorking {
            mustRepeat = true
            return
        }
        isWorking = true
        loopTask { [self] in
            repeat {
                mustRepeat = false
                await work()
            } while mustRepeat && !isStopped
            isWorking = false
        }
    }

    func stop() {
        isStopped = true
        retryTimer?.stop()
        puller?.cancel(
            ImageError(.timeLimit, image: settings?.image ?? "", step: coldStart.phase, "the host is stopping"))
        changed.open()
        if useLock >= 0 { close(useLock) }
        useLock = -1
    }

    /// Waits until the app runs, cannot, or `limit` is over.
    func wait(atMost limit: Duration) async {
        let gate = Gate()
        let timer = LoopTimer { gate.open() }
        timer.start(after: limit)
        loopTask { [changed] in
            await changed.wait()
            gate.open()
        }
        await gate.wait()
        timer.stop()
    }

    private func become(_ new: State) {
        state = new
        if case .starting = new {
            if changed.isOpen { changed = Gate() }
        } else {
            changed.open()
        }
    }

    private func work() async {
        var problems: [ConfigurationProblem] = []
        let app = FunctionApp.awaitingImage(folder: host.options.folder, environment: host.options.environment)
        guard let settings = ContainerSettings(app.settings, folder: host.options.folder, problems: &problems) else {
            return fail(
                ImageError(
                    .notAnApp, image: "", step: "settings", "DOCKER_CUSTOM_IMAGE_NAME is not set",
                    remedy: "andiron functionapp config container set --image registry/repository:tag"))
        }
        host.report(problems)
        self.settings = settings
        if content == nil { become(.starting) }
        coldStart = ColdStartReport()
        let lines = ContainerLog(
            folder: host.options.stateFolder + "/logs/LogFiles", site: settings.siteName, image: settings.image)
        do throws(ImageError) {
            let image = try await pull(settings, lines)
            if isStopped { return }
            let lock = store.use(image.digest) ?? -1
            do throws(ImageError) {
                try await putToWork(image, settings, lines)
            } catch {
                if lock >= 0 { close(lock) }
                throw error
            }
            if useLock >= 0 { close(useLock) }
            useLock = lock
            failuresInARow = 0
            coldStart.end()
            announce(image)
            tidyUp(image)
        } catch {
            if isStopped { return }
            lines.failed(error, hasOld: content != nil)
            fail(error)
        }
    }

    /// What need not be done before the start: writing the layers to the disk for good, deleting what is too much.
    private func tidyUp(_ image: PulledImage) {
        let limit = host.app.settings["ANDIRON_IMAGE_STORE_BYTES"].flatMap { Int($0) } ?? ContentStore.defaultByteLimit
        let store = store
        loopTask {
            await offload {
                store.makeDurable(image)
                store.collect(keeping: limit)
                store.emptyTrash()
            }
        }
    }

    private func fail(_ error: ImageError) {
        coldStart.end()
        log(
            HostEvent(
                .coldStart, .error, error.description,
                [("code", .text(error.code)), ("phase", .text(coldStart.phase)), ("image", .text(error.image))]))
        if content != nil {
            log.log(.warning, "the update failed; the old image goes on", [("image", .text(settings?.image ?? ""))])
            return
        }
        if error.kind == .unauthorized, let missing = settings?.missing, !missing.isEmpty {
            become(.inactive("\(error.message); not set: \(missing.joined(separator: ", "))"))
            return
        }
        become(.failed(error))
        guard [.unreachable, .busy, .timeLimit].contains(error.kind) else { return }
        let pause = Self.backOff[min(failuresInARow, Self.backOff.count - 1)]
        failuresInARow += 1
        log.log(.warning, "Site: \(settings?.siteName ?? "") will be blocked for \(Int(pause.inSeconds / 60)) minutes")
        retryTimer?.start(after: pause)
    }

    // MARK: Steps

    private func pull(_ settings: ContainerSettings, _ lines: ContainerLog) async throws(ImageError) -> PulledImage {
        let reference = try ImageReference(settings.image)
        let deadline = monotonicNanoseconds() + UInt64(settings.startTimeLimit.inSeconds * 1e9)
        pullDeadline = deadline
        let client = RegistryClient(
            host: reference.registryHost,
            access: settings.access(for: reference, environment: host.options.environment),
            http: http, log: log, deadline: deadline)
        let puller = ImagePuller(store: store, client: client) { [unowned self] event in
            lines.show(event, reference)
            coldStart.take(event, log)
            host.pullObserver?(event)
        }
        self.puller = puller
        defer {
            self.puller = nil
            host.pullObserver?(nil)
        }
        lines.begin(reference)
        do throws(ImageError) {
            let image = try await puller.pull(reference, skipsBase: true)
            lines.pulled(image)
            return image
        } catch {
            // An image that was here once is better than none while its registry is away.
            guard [.unreachable, .busy, .timeLimit].contains(error.kind), content == nil,
                let known = await offload({ [store] in store.lastDigest(of: reference) })
            else { throw error }
            lines.fallsBack()
            log.log(
                .warning, "Image pull failed. Defaulting to local copy if present.",
                [("reason", .text(error.message)), ("digest", .text("\(known)"))])
            let late = RegistryClient(
                host: reference.registryHost, access: RegistryAccess(), http: http, log: log,
                deadline: monotonicNanoseconds() + 1_000_000_000)
            let local = ImagePuller(store: store, client: late)
            do throws(ImageError) {
                return try await local.pull(reference.with(digest: known), skipsBase: true)
            } catch let second {
                log.log(.debug, "the local copy is not whole: \(second.message)")
                throw error
            }
        }
    }

    /// Loads the app from the image, warms it up, and only then lets it take the place of what ran before.
    private func putToWork(
        _ image: PulledImage, _ settings: ContainerSettings, _ lines: ContainerLog
    ) async throws(ImageError) {
        coldStart.enter("load", log)
        let new = try await content(of: image)
        lines.starting()
        let app = host.loadApp(content: new)
        host.report(app.problems)
        guard !app.isHostBroken else {
            throw ImageError(
                .notAnApp, image: settings.image, step: "load",
                app.problems.first { !$0.isWarning }?.message ?? "host.json cannot be used",
                remedy: "package the app again")
        }
        coldStart.enter("warm-up", log)
        let now = monotonicNanoseconds()
        let left = Duration.nanoseconds(Int64(pullDeadline > now ? pullDeadline - now : 0))
        let warm = await host.warmUp(app, atMost: left, waiting: { lines.waiting() })
        for phase in warm.runtimes.first(where: { $0.python?.pool != nil })?.python?.pool?.coldStart.phases ?? [] {
            coldStart.add(phase.name, phase.milliseconds)
        }
        if let failure = warm.failure, content != nil {
            for runtime in warm.runtimes { host.retire(runtime) }
            throw ImageError(
                failure.isTime ? .timeLimit : .notAnApp, image: settings.image, step: "warm-up", failure.message,
                remedy: "the old image goes on; correct the new one and set it again")
        }
        content = new
        tree = newTree
        host.install(app, prepared: warm.runtimes)
        become(.running(image))
        if let failure = warm.failure {
            // There is nothing else to serve; requests get the script's own error.
            lines.failed(
                ImageError(
                    failure.isTime ? .timeLimit : .notAnApp, image: settings.image, step: "warm-up", failure.message),
                hasOld: false)
        } else {
            lines.ready()
        }
    }

    /// The registry's webhook says that an image was pushed; true when it is ours and an update begins.
    func imageWasPushed(repository: String?, tag: String?) -> Bool {
        guard let settings, settings.updatesByWebhook, let reference = try? ImageReference(settings.image) else {
            return false
        }
        if let repository, repository != reference.repository { return false }
        if let tag, let mine = reference.tag, tag != mine { return false }
        log.log(.information, "the registry's webhook says the image was pushed", [("image", .text(settings.image))])
        begin()
        return true
    }

    /// Makes the app's own copy of its part of an image, and reads the settings it brings.
    private func content(of image: PulledImage) async throws(ImageError) -> AppContent {
        let scriptRoot =
            host.app.settings["AzureWebJobsScriptRoot"] ?? image.configuration.variable("AzureWebJobsScriptRoot")
            ?? "/home/site/wwwroot"
        let place = absolutePath(scriptRoot, in: "/")
        guard access(image.root + place + "/host.json", F_OK) == 0 else {
            throw ImageError(
                .notAnApp, image: "\(image.reference)", step: "load",
                "there is no host.json in '\(scriptRoot)' of the image",
                remedy: "package it with andiron package, or set AzureWebJobsScriptRoot")
        }
        var environment: [String: String] = [:]
        for entry in image.configuration.environment {
            let name = String(entry.prefix { $0 != "=" })
            guard !Self.containerOnly.contains(name) else { continue }
            environment[name] = String(entry.dropFirst(name.count + 1))
        }
        let packages = image.root + place + "/.python_packages/lib/site-packages"
        if isFolder(packages) { environment["PYTHONPATH"] = packages }
        // Packages of an image are shared; what Python makes of them is the app's.
        environment["PYTHONPYCACHEPREFIX"] = host.options.stateFolder + "/pycache"
        return AppContent(folder: try await writableTree(image, place) + place, environment: environment)
    }

    /// A tree the app may write to, as it might in a container; those of earlier starts are thrown away.
    private func writableTree(_ image: PulledImage, _ place: String) async throws(ImageError) -> String {
        treeCount += 1
        let name = "\(getpid())-\(treeCount)-\(image.digest.short)"
        let (folder, running) = (treeFolder, tree)
        let caches = host.options.stateFolder + "/pycache" + treeFolder
        let builder = WritableTree(root: image.root, scriptRoot: place, image: "\(image.reference)")
        let result = await offload { () -> Result<String, ImageError> in
            for old in folderEntries(folder) where old != running {
                let owner = old.prefix { $0 != "-" }
                // Of another host that lives, they are none of ours.
                if let pid = Int32(owner), pid != getpid(), kill(pid, 0) == 0 { continue }
                removeTree("\(folder)/\(old)")
                removeTree("\(caches)/\(old)")
            }
            do throws(ImageError) {
                try builder.make(in: "\(folder)/\(name)")
                return .success("\(folder)/\(name)")
            } catch {
                return .failure(error)
            }
        }
        let made = try result.get()
        newTree = name
        return made
    }

    /// Removes what the app has written, when the host has stopped.
    func removeTrees() {
        for name in folderEntries(treeFolder) where name.hasPrefix("\(getpid())-") {
            removeTree("\(treeFolder)/\(name)")
            removeTree("\(host.options.stateFolder)/pycache\(treeFolder)/\(name)")
        }
    }

    private var treeFolder: String { host.options.stateFolder + "/container" }

    /// Variables of an image that mean something only inside a container.
    private static let containerOnly: Set = [
        "PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH", "AZUREML_MODEL_DIR", "AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT",
        "AZUREML_SOURCE_DIRECTORY", "AzureWebJobsScriptRoot", "ASPNETCORE_URLS", "HOSTNAME", "USER", "SHELL", "PWD",
    ]

    private func announce(_ image: PulledImage) {
        let phases = coldStart.phases.map { "\($0.name)=\(Int($0.milliseconds))" }.joined(separator: " ")
        log(
            HostEvent(
                .coldStart, .information, "the image is ready to serve requests",
                [
                    ("image", .text("\(image.reference)")), ("digest", .text("\(image.digest)")),
                    ("bytes", .integer(image.receivedByteCount)), ("milliseconds", .text(phases)),
                ]))
    }
}
