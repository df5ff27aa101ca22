/// Registered models: files under a name with versions, tags and a description.
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc
public import JSONText

/// A name and perhaps a version, `sklearn_mnist` or `sklearn_mnist:2`.
public struct ModelReference: Sendable, Equatable {
    public let name: String
    /// nil is the newest.
    public let version: Int?

    public init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count) else { return nil }
        name = String(parts[0])
        if parts.count == 1 {
            version = nil
        } else {
            guard let number = Int(parts[1]), number > 0 else { return nil }
            version = number
        }
    }
}

extension ResourceStore {
    private static let fileLimit = 200_000

    /// Registers a file or a folder as the next version of a model.
    public func registerModel(
        _ name: String, path: String, tags: [(String, String)], properties: [(String, String)], description: String?,
        framework: String?
    ) throws(ResourceError) -> JSONValue {
        try ResourceKind.model.check(name)
        guard access(path, R_OK) == 0 else {
            throw .argument("the model path '\(path)' cannot be read", remedy: "--path FILE or FOLDER")
        }
        let file = path.split(separator: "/").last.map(String.init) ?? "model"
        return try update { document throws(ResourceError) in
            let versions = document.all(.model).filter { $0["name"]?.string == name }.compactMap {
                $0["version"]?.integer
            }
            let version = (versions.max() ?? 0) + 1
            let target = "\(folder)/models/\(name)/\(version)"
            do throws(SystemError) {
                try createFolders(target)
            } catch {
                throw .store(error.message)
            }
            var count = 0
            try copy(path, "\(target)/\(file)", &count)
            var now = time(nil)
            var parts = tm()
            gmtime_r(&now, &parts)
            var stamp = [CChar](repeating: 0, count: 40)
            let length = strftime(&stamp, stamp.count, "%Y-%m-%dT%H:%M:%SZ", &parts)
            let created = String(decoding: stamp.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
            func record(_ pairs: [(String, String)]) -> JSONValue {
                JSONValue(.object(pairs.map { JSONValue.Member(name: $0.0, nameOffset: 0, value: .text($0.1)) }))
            }
            let model = JSONValue.record([
                "createdTime": .text(created), "description": .optional(description),
                "framework": .text(framework ?? "Custom"), "id": .text("\(name):\(version)"), "name": .text(name),
                "path": .text("azureml-models/\(name)/\(version)/\(file)"), "properties": record(properties),
                "tags": record(tags), "version": .number(version), "_path": .text("\(target)/\(file)"),
            ])
            document.put(.model, model)
            return model
        }
    }

    private func copy(_ source: String, _ target: String, _ count: inout Int) throws(ResourceError) {
        count += 1
        guard count <= Self.fileLimit else {
            throw .argument("the model has more than \(Self.fileLimit) files", remedy: nil)
        }
        if isFolder(source) {
            mkdir(target, 0o755)
            for name in folderEntries(source) { try copy("\(source)/\(name)", "\(target)/\(name)", &count) }
            return
        }
        let input = open(source, O_RDONLY | O_CLOEXEC)
        let output = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        defer {
            if input >= 0 { close(input) }
            if output >= 0 { close(output) }
        }
        var isWhole = input >= 0 && output >= 0
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while isWhole {
            let read = Glibc.read(input, &buffer, buffer.count)
            if read <= 0 {
                isWhole = read == 0
                break
            }
            isWhole = write(output, buffer, read) == read
        }
        guard isWhole else {
            throw .store("'\(source)' cannot be copied to \(target): \(String(cString: strerror(errno)))")
        }
    }

    /// A registered model, the newest when no version is given.
    public func model(_ reference: ModelReference) throws(ResourceError) -> JSONValue {
        let all = try read().all(.model).filter { $0["name"]?.string == reference.name }
        let found =
            reference.version.map { wanted in all.first { $0["version"]?.integer == wanted } }
            ?? all.max { ($0["version"]?.integer ?? 0) < ($1["version"]?.integer ?? 0) }
        guard let found else {
            let version = reference.version.map { ":\($0)" } ?? ""
            throw .notFound(
                "Model '\(reference.name)\(version)' could not be found.",
                remedy: all.isEmpty
                    ? "andiron model list"
                    : "its versions are \(all.compactMap { $0["version"]?.integer }.map(String.init).joined(separator: ", "))"
            )
        }
        return found
    }

    /// Deletes a version, or all of a model.
    public func deleteModel(_ reference: ModelReference) throws(ResourceError) -> Int {
        var removed: [String] = []
        try update { document throws(ResourceError) in
            let matches = { (model: JSONValue) in
                model["name"]?.string == reference.name
                    && (reference.version == nil || model["version"]?.integer == reference.version)
            }
            removed = document.all(.model).filter(matches).compactMap { $0["id"]?.string }
            if removed.isEmpty {
                throw .notFound("Model '\(reference.name)' could not be found.", remedy: "andiron model list")
            }
            document.remove(.model, where: matches)
        }
        for id in removed {
            let parts = id.split(separator: ":")
            removeFolderTree("\(folder)/models/\(parts[0])/\(parts[1])")
        }
        return removed.count
    }
}

/// Removes a folder and all below it, never following links.
public func removeFolderTree(_ path: String) {
    var information = stat()
    guard lstat(path, &information) == 0 else { return }
    if information.st_mode & S_IFMT == S_IFDIR {
        for name in folderEntries(path) { removeFolderTree(path + "/" + name) }
        rmdir(path)
    } else {
        unlink(path)
    }
}
