/// A function app: its folder, host.json, settings and functions, as they are on disk now.
public import ConfigurationFiles
internal import Diagnostics
internal import Glibc
public import Invocations
internal import JSONText

/// A function that could not be loaded, and why.
public struct BrokenFunction: Sendable {
    public let name: String
    public let problems: [ConfigurationProblem]
}

/// Where host.json and the functions come from when it is not the app's folder: an image.
public struct AppContent: Sendable, Equatable {
    /// Absolute.
    public let folder: String
    /// Settings the image brings; the app's own beat them.
    public let environment: [String: String]

    public init(folder: String, environment: [String: String]) {
        self.folder = folder
        self.environment = environment
    }
}

/// One loaded app; loading again gives another value.
public struct FunctionApp: Sendable {
    /// Absolute.
    public let folder: String
    public let configuration: HostConfiguration
    public let settings: AppSettings
    public let localHost: LocalHostSettings
    /// Sorted by name without regard to case: the order routes are tried in.
    public let functions: [FunctionMetadata]
    public let broken: [BrokenFunction]
    /// Everything found wrong, warnings too, broken functions' included.
    public let problems: [ConfigurationProblem]
    /// True when host.json is wrong in a way that keeps every function from running.
    public let isHostBroken: Bool

    /// Binding types the host runs.
    public static let registeredTypes: Set<String> = [
        "httptrigger", "http", "blobtrigger", "blob", "queuetrigger", "queue",
        "servicebustrigger", "servicebus",
    ]

    /// Functions an app may have.
    public static let functionLimit = 10_000

    /// Reads an app from its folder.
    ///
    /// - Parameters:
    ///   - folder: absolute.
    ///   - environment: the process's; it beats local.settings.json.
    ///   - only: names to load, over host.json's `functions`.
    ///   - content: where host.json and the functions are, when it is not `folder`.
    public static func load(
        folder appFolder: String, environment: [String: String], only: [String]? = nil, content: AppContent? = nil
    ) -> FunctionApp {
        var (settings, localHost, settingsProblems) = loadAppSettings(folder: appFolder, environment: environment)
        for (name, value) in content?.environment ?? [:] where settings[name] == nil { settings.set(name, value) }
        let folder = content?.folder ?? appFolder
        let overrides = Dictionary(settings.all.map { ($0.name, $0.value) }) { first, _ in first }
        let (configuration, hostProblems) = HostConfiguration.load(folder: folder, environment: overrides)
        let reader = FunctionFile(
            appFolder: folder, settings: settings, hostRetry: configuration.retry, registeredTypes: registeredTypes)
        var functions: [FunctionMetadata] = []
        var broken: [BrokenFunction] = []
        var problems = settingsProblems + hostProblems
        let allowed = (only ?? configuration.functions).map { Set($0.map { $0.lowercased() }) }
        for (name, path) in functionFolders(of: folder) {
            if let allowed, !allowed.contains(name.lowercased()) { continue }
            if functions.count + broken.count >= functionLimit { break }
            var (function, found) = reader.read(name: name, folder: path)
            if let loaded = function,
                let conflict = conflict(of: loaded, with: functions, prefix: configuration.http.routePrefix)
            {
                found.append(conflict)
                function = nil
            }
            problems += found
            if let function {
                functions.append(function)
            } else {
                broken.append(BrokenFunction(name: name, problems: found))
            }
        }
        let names = functions.map(\.name) + broken.map(\.name)
        for name in only ?? [] where !names.contains(where: { $0.caseInsensitiveEquals(name) }) {
            problems.append(
                ConfigurationProblem(
                    "AN2013", "there is no function '\(name)'",
                    remedy: nearest(to: name, among: functionFolders(of: folder).map(\.name)).map {
                        "did you mean '\($0)'?"
                    },
                    isWarning: true))
        }
        return FunctionApp(
            folder: folder, configuration: configuration, settings: settings, localHost: localHost,
            functions: functions,
            broken: broken, problems: problems, isHostBroken: hostProblems.contains { !$0.isWarning })
    }

    /// An app whose image is not here yet: its settings, and no functions.
    public static func awaitingImage(folder: String, environment: [String: String]) -> FunctionApp {
        let (settings, localHost, problems) = loadAppSettings(folder: folder, environment: environment)
        return FunctionApp(
            folder: folder, configuration: HostConfiguration(), settings: settings, localHost: localHost, functions: [],
            broken: [], problems: problems, isHostBroken: false)
    }

    /// The same app with other problems.
    public func with(problems: [ConfigurationProblem]) -> FunctionApp {
        FunctionApp(
            folder: folder, configuration: configuration, settings: settings, localHost: localHost,
            functions: functions,
            broken: broken, problems: problems, isHostBroken: isHostBroken)
    }

    /// The immediate sub-folders that hold a function.json, of the app and of its `functions` folder.
    private static func functionFolders(of folder: String) -> [(name: String, path: String)] {
        var found: [(name: String, path: String)] = []
        for parent in [folder, folder + "/functions"] {
            for name in folderEntries(parent) where access("\(parent)/\(name)/function.json", F_OK) == 0 {
                if !found.contains(where: { $0.name.caseInsensitiveEquals(name) }) {
                    found.append((name, "\(parent)/\(name)"))
                }
            }
        }
        return found.sorted { $0.name.lowercased() < $1.name.lowercased() }
    }

    /// Index errors of the Functions host: a reserved start, or a route another function has.
    private static func conflict(
        of function: FunctionMetadata, with others: [FunctionMetadata], prefix: String
    ) -> ConfigurationProblem? {
        guard let http = function.http else { return nil }
        let place = SourcePlace(file: "\(function.name)/function.json")
        let route = routeKey(function)
        if route.hasPrefix("admin") || route.hasPrefix("runtime") {
            return ConfigurationProblem(
                "AN2011", "The specified route conflicts with one or more built in routes. ('\(route)')",
                remedy: "choose a route that does not start with 'admin' or 'runtime'", place: place)
        }
        let rival = others.first { other in
            guard let theirs = other.http, routeKey(other) == route else { return false }
            guard let mine = http.methods, let their = theirs.methods else { return true }
            return !Set(mine).isDisjoint(with: their)
        }
        return rival.map {
            ConfigurationProblem(
                "AN2011", "The route specified conflicts with the route defined by function '\($0.name)'. ('\(route)')",
                remedy: "give one of them another 'route' or other 'methods'", place: place)
        }
    }

    private static func routeKey(_ function: FunctionMetadata) -> String {
        var route = (function.http?.route ?? function.name).lowercased()[...]
        while route.hasPrefix("/") { route = route.dropFirst() }
        while route.hasSuffix("/") { route = route.dropLast() }
        return String(route)
    }
}
