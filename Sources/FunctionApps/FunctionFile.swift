/// function.json: reading and checking one function, with the Functions host's own messages.
internal import ConfigurationFiles
internal import Diagnostics
internal import Glibc
internal import Invocations
internal import JSONText

/// Reads one function's folder.
struct FunctionFile {
    let appFolder: String
    let settings: AppSettings
    let hostRetry: RetryPolicy?
    /// Trigger and binding types this host runs, in lower case.
    let registeredTypes: Set<String>

    static let keys = [
        "$schema", "bindings", "scriptFile", "entryPoint", "configurationSource", "generatedBy", "retry", "language",
        "disabled",
        "functionDirectory", "bundle", "inferenceCache", "features",
    ]
    static let bindingKeys = [
        "name", "type", "direction", "dataType", "cardinality", "connection", "properties", "authLevel", "methods",
        "route", "webHookType", "path", "source", "access", "queueName",
        "topicName", "subscriptionName", "isSessionsEnabled", "autoCompleteMessages", "maxMessageBatchSize",
        "accessRights",
    ]

    /// - Returns: the function, or nil when a problem is not a warning.
    func read(name: String, folder: String) -> (function: FunctionMetadata?, problems: [ConfigurationProblem]) {
        let displayName = relativePath(folder + "/function.json", to: appFolder)
        guard isFunctionName(name) else {
            let problem = ConfigurationProblem(
                "AN2006", "'\(name)' is not a valid function name.",
                remedy: "start with a letter; letters, digits, _ and -; at most 128; not 'host'",
                place: SourcePlace(file: displayName))
            return (nil, [problem])
        }
        let file: ConfigurationFile
        do {
            file = try ConfigurationFile(path: folder + "/function.json", displayName: displayName)
        } catch {
            return (nil, [error])
        }
        var reader = ConfigurationReader(file: file)
        reader.checkKeys(of: file.root, known: Self.keys, in: "")
        let bindings = readBindings(file, &reader)
        let entryPoint = readEntryPoint(file.root, folder, &reader)
        if reader.flag(file.root, "disabled") == true {
            reader.report(
                "AN2007", "'disabled' in function.json is not read by Functions v2 and later",
                at: reader.value(file.root, "disabled"),
                remedy: "set AzureWebJobs.\(name).Disabled to true in the app settings", isWarning: true)
        }
        let http = bindings.first { $0.type.lowercased() == "httptrigger" }
            .flatMap { readHTTPTrigger($0.properties, &reader) }
        let cache = readCacheSwitch(file.root, &reader)
        let features = FeatureSource.read(file.root, &reader)
        let retry = RetryPolicy.read(file.root, &reader) ?? hostRetry
        guard let entryPoint, reader.problems.allSatisfy(\.isWarning) else { return (nil, reader.problems) }
        let function = FunctionMetadata(
            name: name, folder: folder, bindings: bindings, http: http, entryPoint: entryPoint, retry: retry,
            usesInferenceCache: cache, features: features, isDisabled: settings.isDisabled(function: name),
            configuration: file.root)
        return (function, reader.problems)
    }

    private func isFunctionName(_ name: String) -> Bool {
        guard let first = name.utf8.first, asciiLetters.contains(first), name.utf8.count <= 128 else { return false }
        return name.lowercased() != "host"
            && name.utf8.allSatisfy {
                asciiLetters.contains($0) || (0x30...0x39).contains($0) || $0 == 0x5F || $0 == 0x2D
            }
    }

    private func readBindings(_ file: ConfigurationFile, _ reader: inout ConfigurationReader) -> [BindingMetadata] {
        let list = reader.value(file.root, "bindings")
        guard let elements = list?.elements, !elements.isEmpty else {
            reader.report("AN2007", "At least one binding must be declared.", at: list ?? file.root)
            return []
        }
        let bindings = elements.compactMap { readBinding($0, &reader) }
        let triggers = bindings.filter(\.isTrigger)
        if triggers.count > 1 {
            reader.report(
                "AN2007", "Multiple trigger bindings defined. A function can only have a single trigger binding.",
                at: triggers[1].properties)
        } else if triggers.isEmpty, bindings.count == elements.count {
            reader.report(
                "AN2007", "No trigger binding specified. A function must have a trigger input binding.", at: list)
        }
        for (index, binding) in bindings.enumerated()
        where bindings[..<index].contains(where: { $0.name.caseInsensitiveEquals(binding.name) }) {
            reader.report(
                "AN2007", "Multiple bindings with name '\(binding.name)' discovered. Binding names must be unique.",
                at: reader.value(binding.properties, "name"))
        }
        let inputs = bindings.filter { !$0.isTrigger && $0.direction != .out }
        if inputs.count > 1 {
            reader.report(
                "AN2007", "a function can have one input binding beside its trigger and has \(inputs.count)",
                at: inputs[1].properties, remedy: "run(data) is given one value: the input's in place of the trigger's")
        }
        return bindings
    }

    private func readBinding(_ value: JSONValue, _ reader: inout ConfigurationReader) -> BindingMetadata? {
        guard value.members != nil else {
            reader.report("AN2003", "a binding must be an object and is \(value.kindName)", at: value)
            return nil
        }
        let name = reader.text(value, "name") ?? ""
        guard isBindingName(name) else {
            reader.report(
                "AN2007", "The binding name \(name) is invalid. Please assign a valid name to the binding.",
                at: reader.value(value, "name") ?? value, remedy: "a letter, then letters and digits; or $return")
            return nil
        }
        guard let type = reader.text(value, "type"), !type.isEmpty else {
            reader.report("AN2007", "Binding '\(name)' is invalid. Bindings must specify a Type.", at: value)
            return nil
        }
        let word = reader.text(value, "direction") ?? "in"
        guard let direction = BindingDirection(rawValue: word.lowercased()) else {
            reader.report(
                "AN2007", "'\(word)' is not a valid binding direction.", at: reader.value(value, "direction"),
                remedy: "in, out or inout")
            return nil
        }
        guard registeredTypes.contains(type.lowercased()) else {
            let meant = nearest(to: type, among: registeredTypes.sorted())
            reader.report(
                "AN2007",
                "The binding type(s) '\(type)' are not registered. Please ensure the type is correct and the binding extension is installed.",
                at: reader.value(value, "type"), remedy: meant.map { "did you mean '\($0)'?" })
            return nil
        }
        if type.lowercased() == "http", direction == .in {
            reader.report(
                "AN2007", "Http binding can only be used for output.", at: reader.value(value, "direction") ?? value,
                remedy: "add \"direction\": \"out\"")
        }
        reader.checkKeys(of: value, known: Self.bindingKeys, in: "bindings")
        let binding = BindingMetadata(
            name: name, type: type, direction: direction, properties: value, texts: texts(of: value, &reader))
        checkStorage(binding, &reader)
        checkServiceBus(binding, &reader)
        return binding
    }

    private func isBindingName(_ name: String) -> Bool {
        if name == "$return" { return true }
        guard let first = name.utf8.first, asciiLetters.contains(first), name.utf8.count <= 128 else { return false }
        return name.utf8.allSatisfy { asciiLetters.contains($0) || (0x30...0x39).contains($0) }
    }

    private func readHTTPTrigger(_ value: JSONValue, _ reader: inout ConfigurationReader) -> HTTPTriggerMetadata? {
        let word = reader.text(value, "authLevel") ?? "function"
        guard let level = AuthorizationLevel(rawValue: word.lowercased()) else {
            reader.report(
                "AN2007",
                "Error parsing function.json: Invalid value specified for binding property 'authLevel' of enum type AuthorizationLevel.",
                at: reader.value(value, "authLevel"), remedy: "anonymous, function or admin")
            return nil
        }
        let methods = reader.texts(value, "methods")?.map { $0.uppercased() }
        let route = reader.text(value, "route")
        if let route {
            do throws(RouteTemplateError) {
                _ = try RouteTemplate(route)
            } catch {
                reader.report("AN2008", error.reason, at: reader.value(value, "route"), remedy: error.remedy)
            }
        }
        return HTTPTriggerMetadata(authLevel: level, methods: methods, route: route)
    }

    private func readCacheSwitch(_ root: JSONValue, _ reader: inout ConfigurationReader) -> Bool? {
        guard let value = reader.value(root, "inferenceCache") else { return nil }
        return value.members == nil ? reader.flag(root, "inferenceCache") : reader.flag(value, "enabled") ?? true
    }

    /// `bundle` (a folder or `builtin:echo`) or `scriptFile` (a .py file, whose folder is the bundle).
    private func readEntryPoint(_ root: JSONValue, _ folder: String, _ reader: inout ConfigurationReader) -> EntryPoint?
    {
        if let written = reader.text(root, "bundle") {
            let bundle = expand(written, at: reader.value(root, "bundle"), &reader)
            if bundle == "builtin:echo" { return .echo }
            if bundle == "builtin:size" { return .size }
            if bundle.hasPrefix("builtin:") {
                reader.report(
                    "AN2010", "'\(bundle)' is not built in", at: reader.value(root, "bundle"),
                    remedy: "builtin:echo, builtin:size")
                return nil
            }
            let path = absolutePath(bundle, in: folder)
            guard isFolder(path) else {
                reader.report(
                    "AN2010", "the bundle folder '\(bundle)' does not exist (\(path))",
                    at: reader.value(root, "bundle"),
                    remedy: "give the folder that holds the entry script, relative to function.json")
                return nil
            }
            return .bundle(folder: path, script: nil)
        }
        guard let script = reader.text(root, "scriptFile") else {
            let score = folder + "/score.py"
            if access(score, R_OK) == 0 { return .bundle(folder: folder, script: score) }
            reader.report(
                "AN2010", "the function names no 'bundle' and no 'scriptFile', and its folder holds no score.py",
                at: root,
                remedy: "add \"bundle\": \"../../samples/bundles/…\" or \"scriptFile\": \"score.py\"")
            return nil
        }
        let path = absolutePath(expand(script, at: reader.value(root, "scriptFile"), &reader), in: folder)
        guard access(path, R_OK) == 0, !isFolder(path) else {
            reader.report(
                "AN2010",
                "Invalid script file name configuration. The 'scriptFile' property is set to a file that does not exist. (\(path))",
                at: reader.value(root, "scriptFile"))
            return nil
        }
        return .bundle(folder: String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]), script: path)
    }

    func expand(_ text: String, at value: JSONValue?, _ reader: inout ConfigurationReader) -> String {
        do {
            return try settings.expand(text, place: value.map { reader.file.place(of: $0) })
        } catch {
            reader.report(error.code, error.message, at: value, remedy: error.remedy)
            return text
        }
    }
}

private let asciiLetters: Set<UInt8> = Set(
    Array(UInt8(ascii: "a")...UInt8(ascii: "z")) + Array(UInt8(ascii: "A")...UInt8(ascii: "Z")))
