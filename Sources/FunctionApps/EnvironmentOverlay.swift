/// `AzureFunctionsJobHost__a__b=value`: the environment laid over host.json.
internal import ConfigurationFiles
internal import JSONText

enum EnvironmentOverlay {
    static let prefix = "AzureFunctionsJobHost__"

    /// The document with each matching variable set at its path; arrays are addressed by index.
    static func apply(_ environment: [String: String], to root: JSONValue) -> JSONValue {
        var result = root
        for (name, value) in environment.sorted(by: { $0.key < $1.key })
        where name.lowercased().hasPrefix(prefix.lowercased()) {
            let path = name.dropFirst(prefix.count).split(separator: "__").map(String.init)
            guard !path.isEmpty else { continue }
            result = set(result, path[...], JSONValue(.string(value), offset: -1))
        }
        return result
    }

    private static func set(_ target: JSONValue?, _ path: ArraySlice<String>, _ value: JSONValue) -> JSONValue {
        guard let key = path.first else { return value }
        let rest = path.dropFirst()
        if let index = Int(key), index >= 0, index < 1000, target == nil || target?.elements != nil {
            var elements = target?.elements ?? []
            while elements.count <= index { elements.append(JSONValue(.null, offset: -1)) }
            elements[index] = set(elements[index].isNull ? nil : elements[index], rest, value)
            return JSONValue(.array(elements), offset: target?.offset ?? -1)
        }
        var members = target?.members ?? []
        let position = members.lastIndex { $0.name.caseInsensitiveEquals(key) }
        let old = position.map { members[$0] }
        let new = JSONValue.Member(
            name: old?.name ?? key, nameOffset: old?.nameOffset ?? -1, value: set(old?.value, rest, value))
        if let position { members[position] = new } else { members.append(new) }
        return JSONValue(.object(members), offset: target?.offset ?? -1)
    }
}
