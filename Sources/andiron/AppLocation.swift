/// Where the function app is, and where its state and the caches lie.
internal import Resources
internal import JSONText
import ArgumentParser
import ConfigurationFiles
import Glibc
import Hosting

/// The folder argument that several commands share.
struct AppLocation: ParsableArguments {
    @Argument(
        help:
            "The function app's folder; or the name of one made with functionapp create; otherwise the nearest one upwards that holds a host.json."
    )
    var path: String?

    @Option(name: [.customLong("script-root"), .customLong("root")], help: .hidden)
    var scriptRoot: String?

    @Option(help: "Folder for logs, keys and state (default: .andiron in the app).")
    var stateFolder: String?

    /// The app's folder, absolute.
    func folder() -> String {
        if let given = path ?? scriptRoot {
            let folder = absolutePath(given, in: currentFolder())
            // A name without a folder is an app of functionapp create.
            if !isFolder(folder), let app = try? resourceStore().read().find(.functionApp, given) {
                return app["folder"]?.string ?? folder
            }
            return folder
        }
        if let root = processEnvironment()["AzureWebJobsScriptRoot"] { return absolutePath(root, in: currentFolder()) }
        var folder = currentFolder()
        if FunctionHost.comesFromImage(folder, processEnvironment()) { return folder }
        while access(folder + "/host.json", F_OK) != 0, let slash = folder.lastIndex(of: "/"), folder.count > 1 {
            folder = slash == folder.startIndex ? "/" : String(folder[..<slash])
        }
        return access(folder + "/host.json", F_OK) == 0 ? folder : currentFolder()
    }

    func state(of folder: String) -> String {
        stateFolder.map { absolutePath($0, in: currentFolder()) } ?? folder + "/.andiron"
    }

    /// `$XDG_CACHE_HOME/andiron`, where environments are shared by all apps.
    static func cacheFolder() -> String {
        let environment = processEnvironment()
        if let cache = environment["ANDIRON_CACHE"] { return absolutePath(cache, in: currentFolder()) }
        if let cache = environment["XDG_CACHE_HOME"], !cache.isEmpty { return cache + "/andiron" }
        return (environment["HOME"] ?? "/tmp") + "/.cache/andiron"
    }
}
