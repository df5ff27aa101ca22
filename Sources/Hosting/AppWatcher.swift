/// Hot reload: changes of configuration reload the app, changes of a bundle reload its workers.
internal import Bundles
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import Invocations
internal import Scoring
internal import Workers

/// Watches the app's folders while it lives.
@EventLoop
final class AppWatcher {
    private unowned let host: FunctionHost
    private let log: EventLog
    private var watch: FolderWatch?
    private var timer: LoopTimer?
    private var reloadsApp = false
    private var settingsChanged = false
    private var changedPaths: Set<String> = []

    /// How long changes are gathered before something is reloaded.
    private static let settleTime = Duration.milliseconds(100)
    /// Folders watched per bundle.
    private static let folderLimit = 1000

    init(host: FunctionHost, log: EventLog) {
        self.host = host
        self.log = log
        timer = LoopTimer { [unowned self] in self.act() }
        do throws(SystemError) {
            watch = try FolderWatch { [unowned self] change in self.changed(change) }
        } catch {
            log.log(.warning, "files are not watched: \(error.message)", [("code", .text(error.code))])
        }
        refresh()
    }

    /// Watches what the app consists of now.
    func refresh() {
        let folder = host.options.folder
        var folders = [folder, folder + "/functions"]
        folders += host.app.functions.map(\.folder)
        folders += folderEntries(folder + "/functions").map { "\(folder)/functions/\($0)" }
        for broken in host.app.broken { folders += ["\(folder)/\(broken.name)", "\(folder)/functions/\(broken.name)"] }
        for directory in host.app.configuration.watchDirectories {
            folders += tree(absolutePath(directory, in: folder))
        }
        // The files of an image do not change; another image has others.
        if host.imageApp == nil { for runtime in host.runtimes { folders += bundleFolders(runtime) } }
        for path in Set(folders) where isFolder(path) { try? watch?.add(folder: path) }
    }

    private func bundleFolders(_ runtime: FunctionRuntime) -> [String] {
        guard case .bundle(let folder, _) = runtime.metadata.entryPoint else { return [] }
        let source = runtime.python?.pool?.bundle.sourceFolder ?? folder
        return tree(folder) + (source == folder ? [] : tree(source))
    }

    private func tree(_ root: String) -> [String] {
        var found = [root]
        var index = 0
        while index < found.count, found.count < Self.folderLimit {
            for name in folderEntries(found[index]) where !name.hasPrefix(".") && name != "__pycache__" {
                let path = found[index] + "/" + name
                if isFolder(path) { found.append(path) }
            }
            index += 1
        }
        return found
    }

    private func changed(_ change: FolderChange) {
        switch change {
        case .overflowed: reloadsApp = true
        case .folderCreated(let path):
            if path.hasSuffix("/__pycache__") { return }
            try? watch?.add(folder: path)
            note(path)
            // Files may have come before the watch did.
            for name in folderEntries(path) { note(path + "/" + name) }
        case .written(let path), .removed(let path), .folderRemoved(let path): note(path)
        case .fileCreated: return
        }
        if reloadsApp || !changedPaths.isEmpty { timer?.start(after: Self.settleTime) }
    }

    private func note(_ path: String) {
        let name = path.split(separator: "/").last.map(String.init) ?? ""
        if name.hasSuffix(".pyc") || name.hasSuffix("~") || name.hasPrefix(".") || name.hasSuffix(".tmp") { return }
        let configuration = host.app.configuration
        let inWatched = configuration.watchDirectories.contains {
            path.hasPrefix(absolutePath($0, in: host.options.folder) + "/")
        }
        if inWatched || ["host.json", "function.json"].contains(name) || configuration.watchFiles.contains(name)
            || path.hasPrefix(host.options.folder + "/functions/") && isFolder(path)
        {
            reloadsApp = true
        }
        if name == "local.settings.json", path == host.options.folder + "/" + name {
            settingsChanged = true
        }
        changedPaths.insert(path)
    }

    private func act() {
        if settingsChanged {
            settingsChanged = false
            host.settingsChanged()
        }
        let paths = changedPaths
        changedPaths = []
        let touched = host.runtimes.filter { runtime in
            bundleFolders(runtime).prefix(1).contains { root in paths.contains { $0.hasPrefix(root + "/") } }
                || sourceTouched(runtime, paths)
        }
        if reloadsApp {
            reloadsApp = false
            host.reload()
        }
        for runtime in touched { runtime.python?.load() }
        refresh()
    }

    private func sourceTouched(_ runtime: FunctionRuntime, _ paths: Set<String>) -> Bool {
        guard let source = runtime.python?.pool?.bundle.sourceFolder else { return false }
        return paths.contains { $0.hasPrefix(source + "/") }
    }
}
