/// The settings of a function app: `Values` of its local.settings.json, changed whole and read by the host.
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc
public import JSONText

/// The file of one app.
public struct AppSettingsFile: Sendable {
    public let path: String

    /// - Parameter folder: the app's.
    public init(folder: String) { path = folder + "/local.settings.json" }

    /// Names whose values are never printed.
    static let masked: Set = ["DOCKER_REGISTRY_SERVER_PASSWORD"]
    /// What `config container` is about, in the order it prints.
    public static let containerNames = [
        "WEBSITES_ENABLE_APP_SERVICE_STORAGE", "DOCKER_REGISTRY_SERVER_URL", "DOCKER_REGISTRY_SERVER_USERNAME",
        "DOCKER_REGISTRY_SERVER_PASSWORD",
    ]

    private func root() throws(ResourceError) -> JSONValue {
        guard let bytes = readFile(path, limit: ConfigurationFile.byteLimit) else {
            return ["IsEncrypted": .flag(false), "Values": .record([:])]
        }
        guard let root = try? JSONParser.parse(bytes, allowsComments: true), root.members != nil else {
            throw .argument("\(path) is not JSON", remedy: "correct it; andiron validate says where")
        }
        return root
    }

    /// All settings, by name.
    public func values() throws(ResourceError) -> [(name: String, value: String)] {
        (try root()["Values"]?.members ?? []).map { ($0.name, $0.value.string ?? "") }
    }

    /// Sets and removes settings in one write.
    public func change(set: [(String, String)], remove: [String] = []) throws(ResourceError) {
        let old = try root()
        var values = old["Values"] ?? .record([:])
        for (name, value) in set {
            let written = values.members?.first { $0.name.caseInsensitiveEquals(name) }?.name ?? name
            values = values.setting(written, .text(value))
        }
        for name in remove {
            if let written = values.members?.first(where: { $0.name.caseInsensitiveEquals(name) })?.name {
                values = values.removing(written)
            }
        }
        let new = (old["IsEncrypted"] == nil ? old.setting("IsEncrypted", .flag(false)) : old).setting("Values", values)
        do throws(SystemError) {
            if let slash = path.lastIndex(of: "/") { try createFolders(String(path[..<slash]), mode: 0o700) }
            try writeFileAtomically(path, new.indented(), mode: 0o600)
        } catch {
            throw .store(error.message)
        }
    }

    /// `[{"name","slotSetting","value"}]`, sorted; passwords are null, and with `redacting` every value.
    public func list(slotSettings: Set<String>, redacting: Bool = false) throws(ResourceError) -> JSONValue {
        .list(
            try values().sorted { $0.name < $1.name }.map { setting in
                .record([
                    "name": .text(setting.name), "slotSetting": .flag(slotSettings.contains(setting.name)),
                    "value": redacting || Self.masked.contains(setting.name.uppercased())
                        ? .null : .text(setting.value),
                ])
            })
    }

    /// What `config container show` prints: the container's settings, and the image without a slot.
    public func container(slotSettings: Set<String>) throws(ResourceError) -> JSONValue {
        let all = try values()
        var rows: [JSONValue] = []
        for name in Self.containerNames {
            guard let setting = all.first(where: { $0.name.caseInsensitiveEquals(name) }) else { continue }
            rows.append(
                .record([
                    "name": .text(name), "slotSetting": .flag(slotSettings.contains(name)),
                    "value": Self.masked.contains(name) ? .null : .text(setting.value),
                ]))
        }
        if let image = all.first(where: { $0.name.caseInsensitiveEquals("DOCKER_CUSTOM_IMAGE_NAME") })?.value,
            !image.isEmpty
        {
            rows.append(.record(["name": .text("DOCKER_CUSTOM_IMAGE_NAME"), "value": .text(linuxFxVersion(image))]))
        }
        return .list(rows)
    }
}

/// Settings as they are written on a command line: `name=value`, split at the first `=`, or JSON.
///
/// - Throws: AN9023 in Azure's words.
public func parseSettings(_ texts: [String]) throws(ResourceError) -> [(String, String)] {
    var found: [(String, String)] = []
    for text in texts {
        if let document = try? JSONParser.parse(Array(text.utf8)), document.members != nil || document.elements != nil {
            if let elements = document.elements {
                for element in elements {
                    if let name = element["name"]?.string { found.append((name, plainText(element["value"]))) }
                }
            } else {
                for member in document.members ?? [] { found.append((member.name, plainText(member.value))) }
            }
            continue
        }
        guard let equals = text.firstIndex(of: "="), equals != text.startIndex else {
            throw .argument(
                "Invalid setting format: '\(text)'. Expected 'key=value' format or valid JSON.", remedy: nil)
        }
        found.append((String(text[..<equals]), String(text[text.index(after: equals)...])))
    }
    return found
}

private func plainText(_ value: JSONValue?) -> String {
    switch value?.content {
    case .string(let text): return text
    case .number(let digits): return digits
    case .bool(let truth): return truth ? "true" : "false"
    case .null, nil: return ""
    default:
        var writer = JSONWriter()
        if let value { writer.value(value) }
        return String(decoding: writer.bytes, as: UTF8.self)
    }
}
