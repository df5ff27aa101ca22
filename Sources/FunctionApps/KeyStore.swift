/// Function, host, system and master keys, as files laid out like the Functions host's.
internal import ConfigurationFiles
public import EventLoops
public import Invocations
internal import JSONText

/// One key.
public struct FunctionKey: Sendable, Equatable {
    public let name: String
    public let value: String

    public init(name: String, value: String) {
        self.name = name
        self.value = value
    }
}

/// Keys in a folder: `host.json` for the app, `<function>.json` for each function. Created on first use.
@EventLoop
public final class KeyStore {
    /// Whose keys.
    public enum Scope: Sendable, Equatable {
        /// Function keys valid for every function.
        case host
        /// Keys of extensions; they do not open functions.
        case system
        /// Keys of one function.
        case function(String)
    }

    private struct HostKeys {
        var master: String
        var function: [FunctionKey]
        var system: [FunctionKey]
    }

    private let folder: String
    private var random = SystemRandomNumberGenerator()
    private var hostKeys: HostKeys?
    private var functionKeys: [String: [FunctionKey]] = [:]

    /// - Parameter folder: absolute; made with mode 0700 when the first key is.
    public init(folder: String) { self.folder = folder }

    /// The level a presented key opens for a function; nil for a wrong key. Compares in constant time.
    public func level(of key: String, function: String) throws(SystemError) -> AuthorizationLevel? {
        let host = try loadHost()
        let presented = Array(key.utf8)
        let matches = { (value: String) in constantTimeEqual(Array(value.utf8), presented) }
        // No early exit: every key is compared, so that the time tells nothing.
        let isMaster = matches(host.master)
        let isSystem = host.system.reduce(false) { $0 || matches($1.value) }
        let isHost = host.function.reduce(false) { found, key in matches(key.value) || found }
        let isFunction = try load(function).reduce(false) { found, key in matches(key.value) || found }
        if isMaster { return .admin }
        if isSystem { return .system }
        return isHost || isFunction ? .function : nil
    }

    public func master() throws(SystemError) -> String { try loadHost().master }

    /// The keys of a scope.
    public func keys(_ scope: Scope) throws(SystemError) -> [FunctionKey] {
        switch scope {
        case .host: try loadHost().function
        case .system: try loadHost().system
        case .function(let name): try load(name)
        }
    }

    /// Sets a key, or makes a value when none is given.
    ///
    /// - Returns: the key, and whether it is new.
    public func set(_ scope: Scope, name: String, value: String?) throws(SystemError) -> (key: FunctionKey, isNew: Bool)
    {
        let key = FunctionKey(name: name, value: value ?? generate())
        var list = try keys(scope)
        let position = list.firstIndex { $0.name.lowercased() == name.lowercased() }
        if let position { list[position] = key } else { list.append(key) }
        try store(scope, list)
        return (key, position == nil)
    }

    /// Gives the app another master key.
    public func setMaster(_ value: String?) throws(SystemError) -> FunctionKey {
        var host = try loadHost()
        host.master = value ?? generate()
        try save(host)
        return FunctionKey(name: "_master", value: host.master)
    }

    /// - Returns: false when there was no such key.
    public func delete(_ scope: Scope, name: String) throws(SystemError) -> Bool {
        var list = try keys(scope)
        guard let position = list.firstIndex(where: { $0.name.lowercased() == name.lowercased() }) else { return false }
        list.remove(at: position)
        try store(scope, list)
        return true
    }

    private func store(_ scope: Scope, _ list: [FunctionKey]) throws(SystemError) {
        switch scope {
        case .host:
            var host = try loadHost()
            host.function = list
            try save(host)
        case .system:
            var host = try loadHost()
            host.system = list
            try save(host)
        case .function(let name): try save(name, list)
        }
    }

    /// 56 URL-safe characters with the Functions host's marker in the tail.
    private func generate() -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        let letters = { (count: Int) in String((0..<count).map { _ in alphabet[Int(self.random.next() & 63)] }) }
        return letters(44) + "AzFu" + letters(6) + "=="
    }

    // MARK: Files

    private func loadHost() throws(SystemError) -> HostKeys {
        if let hostKeys { return hostKeys }
        if let root = read("host"), let master = root["masterKey"]?["value"]?.string {
            let keys = HostKeys(master: master, function: list(root["functionKeys"]), system: list(root["systemKeys"]))
            hostKeys = keys
            return keys
        }
        let keys = HostKeys(master: generate(), function: [FunctionKey(name: "default", value: generate())], system: [])
        try save(keys)
        return keys
    }

    private func load(_ function: String) throws(SystemError) -> [FunctionKey] {
        let name = function.lowercased()
        if let keys = functionKeys[name] { return keys }
        if let root = read(name) {
            functionKeys[name] = list(root["keys"])
            return functionKeys[name] ?? []
        }
        let keys = [FunctionKey(name: "default", value: generate())]
        try save(name, keys)
        return keys
    }

    private func read(_ name: String) -> JSONValue? {
        readFile("\(folder)/\(name).json", limit: ConfigurationFile.byteLimit).flatMap { try? JSONParser.parse($0) }
    }

    private func list(_ value: JSONValue?) -> [FunctionKey] {
        (value?.elements ?? []).compactMap { entry in
            guard let name = entry["name"]?.string, let value = entry["value"]?.string else { return nil }
            return FunctionKey(name: name, value: value)
        }
    }

    private func save(_ keys: HostKeys) throws(SystemError) {
        let bytes = jsonObject { writer in
            writer.name("masterKey")
            Self.write(FunctionKey(name: "master", value: keys.master), into: &writer)
            Self.write("functionKeys", keys.function, into: &writer)
            Self.write("systemKeys", keys.system, into: &writer)
            writer.member("source", "runtime")
            writer.member("decryptionKeyId", "")
        }
        try write("host", bytes)
        hostKeys = keys
    }

    private func save(_ function: String, _ keys: [FunctionKey]) throws(SystemError) {
        let bytes = jsonObject { writer in
            Self.write("keys", keys, into: &writer)
            writer.member("source", "runtime")
            writer.member("decryptionKeyId", "")
        }
        try write(function.lowercased(), bytes)
        functionKeys[function.lowercased()] = keys
    }

    private func write(_ name: String, _ bytes: [UInt8]) throws(SystemError) {
        try createFolders(folder, mode: 0o700)
        try writeFileAtomically("\(folder)/\(name).json", bytes, mode: 0o600)
    }

    private static func write(_ name: String, _ keys: [FunctionKey], into writer: inout JSONWriter) {
        writer.name(name)
        writer.beginArray()
        for key in keys { write(key, into: &writer) }
        writer.endArray()
    }

    private static func write(_ key: FunctionKey, into writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("name", key.name)
        writer.member("value", key.value)
        writer.member("encrypted", false)
        writer.endObject()
    }
}
