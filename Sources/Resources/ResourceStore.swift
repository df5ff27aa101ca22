/// The local resources: one JSON file that many commands at once may change.
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc
public import JSONText

/// All resources, by kind, as they are shown; members that begin with `_` are kept and not shown.
public struct ResourceDocument: Sendable {
    private var lists: [ResourceKind: [JSONValue]] = [:]

    public init() {}

    init?(_ root: JSONValue) {
        guard root["version"]?.integer == 1 else { return nil }
        for kind in ResourceKind.allCases { lists[kind] = root[kind.rawValue]?.elements }
    }

    func encoded() -> [UInt8] {
        var root = JSONValue.record(["version": .number(1)])
        for kind in ResourceKind.allCases { root = root.setting(kind.rawValue, .list(lists[kind] ?? [])) }
        return root.indented()
    }

    /// All of a kind, by name.
    public func all(_ kind: ResourceKind, in group: String? = nil) -> [JSONValue] {
        (lists[kind] ?? [])
            .filter { group == nil || $0["resourceGroup"]?.string?.caseInsensitiveEquals(group ?? "") == true }
            .sorted {
                ($0["name"]?.string ?? "", $0["version"]?.integer ?? 0) < (
                    $1["name"]?.string ?? "", $1["version"]?.integer ?? 0
                )
            }
    }

    /// One of a kind.
    ///
    /// - Throws: AN9021 when there is none in that group, or in any.
    public func find(_ kind: ResourceKind, _ name: String, in group: String? = nil) throws(ResourceError) -> JSONValue {
        if let found = all(kind, in: kind == .group ? nil : group).first(where: { isNamed($0, name) }) { return found }
        let place = group.map { " in resource group '\($0)'" } ?? ""
        throw .notFound(
            "\(kind.words) '\(name)'\(kind == .group ? "" : place) could not be found.",
            remedy: nearest(to: name, among: all(kind).compactMap { $0["name"]?.string }))
    }

    private func nearest(to name: String, among names: [String]) -> String? {
        names.isEmpty ? nil : "there is \(names.prefix(5).joined(separator: ", "))"
    }

    private func isNamed(_ value: JSONValue, _ name: String) -> Bool {
        value["name"]?.string?.caseInsensitiveEquals(name) == true
    }

    /// Adds one, or puts it in the place of the one with its name.
    public mutating func put(_ kind: ResourceKind, _ value: JSONValue) {
        var list = lists[kind] ?? []
        if kind != .model { list.removeAll { isNamed($0, value["name"]?.string ?? "") } }
        list.append(value)
        lists[kind] = list
    }

    /// Takes out what `condition` is true of.
    public mutating func remove(_ kind: ResourceKind, where condition: (JSONValue) -> Bool) {
        lists[kind]?.removeAll(where: condition)
    }
}

/// Reads and changes the file; every call may block for a moment.
public struct ResourceStore: Sendable {
    /// Absolute; apps and models lie there too.
    public let folder: String

    private static let byteLimit = 64 << 20

    public init(folder: String) { self.folder = folder }

    private var path: String { folder + "/resources.json" }

    /// What there is now.
    public func read() throws(ResourceError) -> ResourceDocument {
        guard let bytes = readFile(path, limit: Self.byteLimit) else {
            guard errno == ENOENT else { throw .store("\(path) cannot be read: \(String(cString: strerror(errno)))") }
            return ResourceDocument()
        }
        guard let root = try? JSONParser.parse(bytes), let document = ResourceDocument(root) else {
            throw .store("\(path) is damaged, or from a newer version")
        }
        return document
    }

    /// Changes what there is; nobody else does meanwhile, and an error changes nothing.
    @discardableResult
    public func update<T>(_ body: (inout ResourceDocument) throws(ResourceError) -> T) throws(ResourceError) -> T {
        do throws(SystemError) {
            try createFolders(folder, mode: 0o700)
        } catch {
            throw .store(error.message)
        }
        let lock = open(folder + "/resources.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0, flock(lock, LOCK_EX) == 0 else {
            throw .store("\(folder)/resources.lock cannot be had: \(String(cString: strerror(errno)))")
        }
        defer { close(lock) }
        var document = try read()
        let result = try body(&document)
        do throws(SystemError) {
            try writeFileAtomically(path, document.encoded(), mode: 0o600)
        } catch {
            throw .store(error.message)
        }
        return result
    }
}
