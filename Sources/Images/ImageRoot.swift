/// An image put together from unpacked layers: a tree of links into the store, made in milliseconds.
///
/// A folder that comes from one layer alone is one symbolic link to it; only folders that several layers share are
/// made, with hard links to the files. So a change of code costs what the code has, whatever the model weighs.
internal import CArchive
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc

/// Puts layers over each other as the image specification says (layer.md).
struct ImageRoot {
    /// A folder as one layer has it.
    private struct Source {
        let layer: Int
        let path: String
    }

    private enum Found {
        case folder([Source])
        case file(Source)
        case link(Source, String)
        case nothing
    }

    private static let appFolders = [
        "home", "home/site", "home/site/wwwroot", "var", "var/azureml-app", "var/azureml-app/azureml-models",
    ]

    private let folders: [String]
    private let records: [LayerRecord]
    private let whiteouts: [Set<String>]
    private let opaque: [Set<String>]
    /// Folders that cannot be one link, because a link in them leads out of them.
    private var unfoldable: [Set<String>]
    /// Folders whose contents went where a lower layer's link leads.
    private var redirected: [Set<String>]
    private var mounts: [String: [Source]] = [:]
    private let image: String

    /// - Parameters:
    ///   - layers: folders with `fs` and `record.json`, lowest first.
    init(layers: [String], image: String) throws(ImageError) {
        folders = layers.map { $0 + "/fs" }
        self.image = image
        var records: [LayerRecord] = []
        for layer in layers {
            guard let record = LayerRecord(path: layer + "/record.json") else {
                throw ImageError(
                    .store, image: image, step: "unpack", "\(layer)/record.json is damaged",
                    remedy: "andiron image prune --all")
            }
            records.append(record)
        }
        self.records = records
        whiteouts = records.map { Set($0.whiteouts) }
        opaque = records.map { Set($0.opaqueFolders) }
        redirected = records.map { _ in [] }
        unfoldable = records.map { record in
            var found: Set<String> = []
            let leading = record.links.filter { $0.value.hasPrefix("/") || $0.value.contains("..") }.map(\.key)
            for path in leading + record.pendingHardLinks.keys {
                var rest = path[...]
                while let slash = rest.lastIndex(of: "/") {
                    rest = rest[..<slash]
                    guard found.insert(String(rest)).inserted else { break }
                }
            }
            // Where apps live the folders are real, so that `..` leads where it says.
            found.formUnion(Self.appFolders)
            return found
        }
        try redirect()
    }

    private func join(_ folder: String, _ name: some StringProtocol) -> String {
        folder.isEmpty ? String(name) : "\(folder)/\(name)"
    }

    private func hostile(_ reason: String) -> ImageError {
        ImageError(
            .hostileLayer, image: image, step: "unpack", reason,
            remedy: "do not use this image unless you know who made it")
    }

    // MARK: Looking

    private func top(below layer: Int) -> [Source] {
        (0..<layer).reversed().map { Source(layer: $0, path: "") }
    }

    /// What `name` is in the folder that `sources` make, highest first.
    private func look(_ name: some StringProtocol, in sources: [Source], at virtual: String) -> Found {
        var found: [Source] = mounts[join(virtual, name)] ?? []
        let limit = sources.first?.layer ?? -1
        found.removeAll { $0.layer > limit }
        let hasMounts = !found.isEmpty
        for source in sources {
            let path = join(source.path, name)
            if !redirected[source.layer].contains(path) {
                var information = stat()
                if lstat("\(folders[source.layer])/\(path)", &information) == 0 {
                    if information.st_mode & S_IFMT == S_IFDIR {
                        found.append(Source(layer: source.layer, path: path))
                    } else if found.isEmpty {
                        if let target = records[source.layer].links[path] {
                            return .link(Source(layer: source.layer, path: path), target)
                        }
                        return .file(Source(layer: source.layer, path: path))
                    } else {
                        break
                    }
                } else if records[source.layer].pendingHardLinks[path] != nil, found.isEmpty {
                    return .file(Source(layer: source.layer, path: path))
                }
            }
            if whiteouts[source.layer].contains(path) || opaque[source.layer].contains(source.path) { break }
        }
        if hasMounts { found.sort { $0.layer > $1.layer } }
        return found.isEmpty ? .nothing : .folder(found)
    }

    /// Follows a path through links, in the layers below `layer`.
    private func follow(
        _ path: String, below layer: Int, _ followed: inout Int
    ) throws(ImageError) -> (virtual: String, found: Found) {
        var virtual = ""
        var stack: [(virtual: String, sources: [Source])] = [("", top(below: layer))]
        var parts = Array(path.split(separator: "/").reversed())
        while let part = parts.popLast() {
            if part == "." { continue }
            if part == ".." {
                if stack.count > 1 { stack.removeLast() }
                virtual = stack.last?.virtual ?? ""
                continue
            }
            guard let here = stack.last else { break }
            let found = look(part, in: here.sources, at: virtual)
            switch found {
            case .folder(let sources):
                virtual = join(virtual, part)
                stack.append((virtual, sources))
            case .link(_, let target):
                followed += 1
                guard followed <= 40 else { throw hostile("'\(printable(path))' leads in a circle") }
                if target.hasPrefix("/") {
                    stack.removeSubrange(1...)
                    virtual = ""
                }
                parts += target.split(separator: "/").reversed()
            case .file where parts.isEmpty: return (join(virtual, part), found)
            default: return (join(virtual, part), .nothing)
            }
        }
        return (virtual, .folder(stack.last?.sources ?? []))
    }

    /// A folder that is implied by its contents does not replace a lower layer's link: its contents go through it.
    private mutating func redirect() throws(ImageError) {
        for layer in records.indices.dropFirst() {
            for path in records[layer].impliedFolders {
                if redirected[layer].contains(where: { path.hasPrefix($0 + "/") }) { continue }
                let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
                let name = parent.isEmpty ? path : String(path.dropFirst(parent.count + 1))
                var followed = 0
                guard case (let virtual, .folder(let sources)) = try follow(parent, below: layer, &followed),
                    case .link(_, let target) = look(name, in: sources, at: virtual)
                else { continue }
                let start = target.hasPrefix("/") ? target : join(virtual, target)
                let (end, found) = try follow(start, below: layer, &followed)
                guard case .folder = found, !end.isEmpty else {
                    throw hostile(
                        "'\(printable(path))' goes through a link to '\(printable(target))', which is no folder")
                }
                redirected[layer].insert(path)
                mounts[end, default: []].append(Source(layer: layer, path: path))
                // The folders on the way to it, and itself, cannot be one link.
                for index in unfoldable.indices {
                    var rest = end[...]
                    unfoldable[index].insert(end)
                    while let slash = rest.lastIndex(of: "/") {
                        rest = rest[..<slash]
                        unfoldable[index].insert(String(rest))
                    }
                }
                var rest = path[...]
                while let slash = rest.lastIndex(of: "/") {
                    rest = rest[..<slash]
                    unfoldable[layer].insert(String(rest))
                }
            }
        }
    }

    // MARK: Making

    /// Makes the tree in `target`, an empty folder, as it will stand in `final`.
    func make(in target: String, final: String) throws(ImageError) {
        try make(top(below: records.count), "", target, final)
    }

    private func make(_ sources: [Source], _ virtual: String, _ target: String, _ final: String) throws(ImageError) {
        var names: Set<String> = []
        for source in sources {
            names.formUnion(folderEntries("\(folders[source.layer])/\(source.path)"))
            if opaque[source.layer].contains(source.path) { break }
        }
        for (path, mounted) in mounts where !mounted.isEmpty {
            let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
            if parent == virtual { names.insert(parent.isEmpty ? path : String(path.dropFirst(parent.count + 1))) }
        }
        for source in sources {
            for path in records[source.layer].pendingHardLinks.keys {
                let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
                if parent == source.path { names.insert(path.split(separator: "/").last.map(String.init) ?? path) }
            }
        }
        for name in names.sorted() { try make(name, look(name, in: sources, at: virtual), virtual, target, final) }
    }

    private func make(
        _ name: String, _ found: Found, _ virtual: String, _ target: String, _ final: String
    ) throws(ImageError) {
        let path = "\(target)/\(name)"
        let here = join(virtual, name)
        switch found {
        case .nothing: return
        case .link(_, let text):
            try check(symlink(inside(text, at: virtual, final), path), "symlink", path)
        case .file(let source):
            var origin = "\(folders[source.layer])/\(source.path)"
            if let hard = records[source.layer].pendingHardLinks[source.path] {
                var followed = 0
                guard case (_, .file(let lower)) = try follow(hard, below: source.layer, &followed) else {
                    throw hostile("'\(printable(here))' is a hard link to '\(printable(hard))', which no layer has")
                }
                origin = "\(folders[lower.layer])/\(lower.path)"
            }
            try check(link(origin, path), "link", path)
        case .folder(let sources):
            if sources.count == 1, let only = sources.first, !unfoldable[only.layer].contains(only.path),
                mounts.isEmpty || mounts[here] == nil
            {
                try check(symlink("\(folders[only.layer])/\(only.path)", path), "symlink", path)
                return
            }
            try check(mkdir(path, 0o755), "mkdir", path)
            try make(sources, here, path, final)
        }
    }

    /// What a link says, kept inside the image: there is no root but ours.
    private func inside(_ text: String, at virtual: String, _ final: String) -> String {
        if text.hasPrefix("/") { return final + absolutePath(text, in: "/") }
        var depth = virtual.isEmpty ? 0 : virtual.count { $0 == "/" } + 1
        for part in text.split(separator: "/") where part != "." {
            depth += part == ".." ? -1 : 1
            if depth < 0 { return final + absolutePath(join(virtual, text), in: "/") }
        }
        return text
    }

    private func check(_ result: Int32, _ call: String, _ path: String) throws(ImageError) {
        guard result != 0 else { return }
        let error = SystemError(errno: errno, call: call, subject: path)
        throw ImageError(.store, image: image, step: "unpack", error.message, remedy: nil)
    }
}
