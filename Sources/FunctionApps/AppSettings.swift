/// App settings: the environment over local.settings.json, read once at start.
public import ConfigurationFiles
public import Diagnostics
internal import JSONText

/// Names and values a function app is given. Lookups ignore case, as configuration does.
public struct AppSettings: Sendable {
    private var values: [String: (name: String, value: String)] = [:]

    /// Settings from the process environment.
    public init(environment: [String: String]) {
        for (name, value) in environment { set(name, value) }
    }

    /// The value, or nil.
    public subscript(name: String) -> String? { values[name.lowercased()]?.value }

    /// All settings, sorted by name.
    public var all: [(name: String, value: String)] { values.values.sorted { $0.name < $1.name } }

    /// Sets a value.
    public mutating func set(_ name: String, _ value: String) { values[name.lowercased()] = (name, value) }

    /// Whether a setting is `1` or `true`.
    public func isTrue(_ name: String) -> Bool {
        self[name].map { $0 == "1" || $0.lowercased() == "true" } ?? false
    }

    /// Whether a function is switched off: `AzureWebJobs.<Name>.Disabled` or `AzureWebJobs_<Name>_Disabled`.
    public func isDisabled(function name: String) -> Bool {
        isTrue("AzureWebJobs.\(name).Disabled") || isTrue("AzureWebJobs_\(name)_Disabled")
    }

    /// Replaces each `%Name%` by its setting, once, not recursively.
    ///
    /// - Throws: AN2009 with the Functions host's words for an unknown name or a lone `%`.
    public func expand(_ text: String, place: SourcePlace?) throws(ConfigurationProblem) -> String {
        var result = ""
        var rest = text[...]
        while let start = rest.firstIndex(of: "%") {
            result += rest[..<start]
            let after = rest.index(after: start)
            guard let end = rest[after...].firstIndex(of: "%") else {
                let position = text.distance(from: text.startIndex, to: start)
                throw ConfigurationProblem(
                    "AN2009", "The '%' at position \(position) does not have a closing '%'", place: place)
            }
            let name = String(rest[after..<end])
            guard let value = self[name] else {
                throw ConfigurationProblem(
                    "AN2009", "'%\(name)%' does not resolve to a value.",
                    remedy: "set \(name) in local.settings.json or in the environment", place: place)
            }
            result += value
            rest = rest[rest.index(after: end)...]
        }
        return result + rest
    }
}

/// The parts of local.settings.json that are not settings.
public struct LocalHostSettings: Sendable, Equatable {
    public var port: Int?
    public var address: String?
    public var cors: String?
    public var corsCredentials = false

    public init() {}
}

/// Reads local.settings.json and lays the environment over it.
///
/// A missing file is nothing; a broken one is reported and counts as empty, as in the Functions CLI.
public func loadAppSettings(
    folder: String, environment: [String: String]
) -> (settings: AppSettings, host: LocalHostSettings, problems: [ConfigurationProblem]) {
    var settings = AppSettings(environment: environment)
    var host = LocalHostSettings()
    let path = folder + "/local.settings.json"
    guard readFile(path, limit: 1) != nil else { return (settings, host, []) }
    let file: ConfigurationFile
    do {
        file = try ConfigurationFile(path: path, displayName: "local.settings.json")
    } catch {
        return (settings, host, [error])
    }
    var reader = ConfigurationReader(file: file)
    reader.checkKeys(of: file.root, known: ["IsEncrypted", "Values", "Host", "ConnectionStrings"], in: "")
    if reader.flag(file.root, "IsEncrypted") == true {
        reader.report(
            "AN2012", "encrypted settings cannot be read", at: reader.value(file.root, "IsEncrypted"),
            remedy: "decrypt the file and set \"IsEncrypted\": false")
        return (settings, host, reader.problems)
    }
    let values = reader.section(file.root, "Values")
    for member in values?.members ?? [] {
        guard let text = scalarText(member.value) else {
            reader.report(
                "AN2003", "the setting '\(member.name)' must be a string and is \(member.value.kindName)",
                at: member.value, remedy: "settings are flat: name and text")
            continue
        }
        if member.name.isEmpty || settings[member.name] != nil { continue }
        settings.set(member.name, text)
    }
    let section = reader.section(
        file.root, "Host", known: ["LocalHttpPort", "LocalHttpAddress", "CORS", "CORSCredentials"])
    host.port = reader.integer(section, "LocalHttpPort", in: 0...65535)
    host.address = reader.text(section, "LocalHttpAddress")
    host.cors = reader.text(section, "CORS")
    host.corsCredentials = reader.flag(section, "CORSCredentials") ?? false
    for member in reader.section(file.root, "ConnectionStrings")?.members ?? [] {
        let text = member.value.string ?? reader.value(member.value, "ConnectionString")?.string
        if let text, settings["ConnectionStrings:\(member.name)"] == nil {
            settings.set("ConnectionStrings:\(member.name)", text)
        }
    }
    return (settings, host, reader.problems)
}

private func scalarText(_ value: JSONValue) -> String? {
    switch value.content {
    case .string(let text): text
    case .number(let digits): digits
    case .bool(let truth): truth ? "true" : "false"
    default: nil
    }
}
