/// Writes a layer's entries into a folder of its own, and lets nothing out of it.
///
/// A path is resolved against what the layer itself has brought so far, links included, into one without links;
/// the kernel then opens that beneath the folder and follows no link (`openat2`). What an image does to lower layers
/// (whiteouts, opaque folders, hard links) is recorded, and done when layers are put together.
internal import CArchive
internal import EventLoops
internal import Glibc

/// Unpacks one layer; on its own thread.
final class LayerUnpacker {
    private enum Node {
        case folder
        case link(String)
    }

    private let root: Int32
    private let rootPath: String
    private let limits: UnpackLimits
    private let fail: (ImageError.Kind, String, String?) -> ImageError
    /// Folders and links by their path; files need no remembering.
    private var nodes: [String: Node] = ["": .folder]
    private var implied: Set<String> = []
    private var folderTimes: [String: timespec] = [:]
    private var openFolders: [(path: String, descriptor: Int32)] = []
    /// Where the last entry lay: as it was written, and without links.
    private var lastFolder: (written: Substring, path: String)?
    private var record = LayerRecord()
    private var apparentByteCount = 0
    private let umask: UInt32

    /// Folders kept open.
    private static let openFolderLimit = 32
    /// Links followed in one path.
    private static let followLimit = 40

    /// - Parameter folder: exists and is empty.
    init(
        folder: String, limits: UnpackLimits, fail: @escaping (ImageError.Kind, String, String?) -> ImageError
    ) throws(ImageError) {
        rootPath = folder
        self.limits = limits
        self.fail = fail
        umask = processUmask()
        root = open(folder, pathOnly | O_DIRECTORY | O_CLOEXEC)
        guard root >= 0 else { throw fail(.store, "\(folder) cannot be opened", nil) }
    }

    deinit {
        for folder in openFolders { close(folder.descriptor) }
        close(root)
    }

    /// Unpacks all entries and returns what else the layer does.
    func unpack(_ reader: TarReader) throws(ImageError) -> LayerRecord {
        while let entry = try reader.next() {
            record.entryCount += 1
            guard record.entryCount <= limits.entryCount else {
                throw fail(.limit, "has more than \(limits.entryCount) entries", nil)
            }
            try place(entry, reader)
        }
        for (path, time) in folderTimes {
            var times = [time, time]
            let (parent, name) = parted(path)
            utimensat(try openFolder(parent), name.isEmpty ? "." : name, &times, AT_SYMLINK_NOFOLLOW)
        }
        record.impliedFolders = implied.sorted()
        for (path, node) in nodes { if case .link(let target) = node { record.links[path] = target } }
        record.byteCount = apparentByteCount
        return record
    }

    private func hostile(_ entry: TarEntry, _ what: String) -> ImageError {
        fail(
            .hostileLayer, "the entry '\(printable(entry.path))' \(what)",
            "do not use this image unless you know who made it")
    }

    private func place(_ entry: TarEntry, _ reader: TarReader) throws(ImageError) {
        guard let slash = lastSlash(entry.path) else {
            // The root itself, or a name in it.
            let name = entry.path[...]
            if name == "." || name.isEmpty { return rootEntry(entry) }
            return try place(entry, reader, parent: "", name: name)
        }
        let name = entry.path[entry.path.utf8.index(after: slash)...]
        if name.isEmpty || name == "." {
            let parts = components(entry.path[...])
            guard let last = parts.last else { return rootEntry(entry) }
            return try place(entry, reader, parent: parts.dropLast().joined(separator: "/")[...], name: last)
        }
        try place(entry, reader, parent: entry.path[..<slash], name: name)
    }

    /// The parts of a path as the kernel sees them: a slash ends one, whatever combines with it to a character.
    private func components(_ path: Substring) -> [Substring] {
        path.utf8.split(separator: UInt8(ascii: "/")).map { Substring($0) }.filter { $0 != "." }
    }

    /// The folder and the name of a path without links.
    private func parted(_ path: String) -> (folder: String, name: String) {
        guard let slash = lastSlash(path) else { return ("", path) }
        return (String(path[..<slash]), String(path[path.utf8.index(after: slash)...]))
    }

    private func lastSlash(_ path: String) -> String.Index? { path.utf8.lastIndex(of: UInt8(ascii: "/")) }

    private func rootEntry(_ entry: TarEntry) {
        if entry.kind == .folder { folderTimes[""] = entry.modified }
    }

    private func place(_ entry: TarEntry, _ reader: TarReader, parent: Substring, name: Substring) throws(ImageError) {
        guard entry.path.utf8.count <= limits.pathByteCount else {
            throw fail(
                .limit, "an entry's path has \(entry.path.utf8.count) bytes; the limit is \(limits.pathByteCount)", nil)
        }
        guard name != ".." else { throw hostile(entry, "leads out of the image") }
        guard name.utf8.count <= limits.nameByteCount else {
            throw fail(
                .limit, "an entry's name has \(name.utf8.count) bytes; the limit is \(limits.nameByteCount)", nil)
        }
        let isWhereTheLastWas = lastFolder?.written == parent
        let folder = try resolveParent(parent, entry)
        let path = folder.isEmpty ? String(name) : "\(folder)/\(name)"
        if name.hasPrefix(".wh.") { return try whiteout(entry, folder, name.dropFirst(4)) }
        switch entry.kind {
        case .folder: try makeFolder(entry, path, openFolder(folder), String(name))
        case .file: try writeFile(entry, reader, path, in: folder, String(name), opensFolder: isWhereTheLastWas)
        case .link: try makeLink(entry, path, openFolder(folder), String(name))
        case .hardLink: try makeHardLink(entry, path, openFolder(folder), String(name))
        case .other: record.skipped += 1
        }
    }

    private func whiteout(_ entry: TarEntry, _ folder: String, _ target: Substring) throws(ImageError) {
        if target == ".wh..opq" {
            record.opaqueFolders.append(folder)
            return
        }
        // Other marks of one old file system mean nothing here.
        if target.hasPrefix(".wh.") { return }
        guard !target.isEmpty, target != ".", target != ".." else {
            throw hostile(entry, "is a whiteout of '\(printable(String(target)))'")
        }
        record.whiteouts.append(folder.isEmpty ? String(target) : "\(folder)/\(target)")
    }

    // MARK: Kinds of entries

    private func makeFolder(_ entry: TarEntry, _ path: String, _ parent: Int32, _ name: String) throws(ImageError) {
        folderTimes[path] = entry.modified
        let mode = entry.mode & 0o777 | 0o700
        if case .folder = nodes[path] {
            implied.remove(path)
        } else {
            if mkdirat(parent, name, mode) != 0 {
                guard errno == EEXIST else { throw system("mkdir", path) }
                try remove(path, parent, name)
                guard mkdirat(parent, name, mode) == 0 else { throw system("mkdir", path) }
            }
            nodes[path] = .folder
            if mode & ~umask == mode { return }
        }
        fchmodat(parent, name, mode, 0)
    }

    /// Makes a file, in place of one that the layer brought before. The first in a folder is made from the root in one
    /// call; those that follow it, from the folder.
    private func makeFile(
        _ path: String, in folder: String, _ name: String, _ mode: UInt32, opensFolder: Bool
    ) throws(ImageError) -> Int32 {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
        if !opensFolder {
            let file = andiron_open_without_links(root, path, flags, mode)
            if file >= 0 { return file }
            // It is there already, the path is longer than the kernel takes, or that is older than 5.6.
            guard [EEXIST, ENAMETOOLONG, ENOSYS, EPERM].contains(errno) else { throw system("open", path) }
        }
        let parent = try openFolder(folder)
        var file = openat(parent, name, flags, mode)
        if file < 0, errno == EEXIST {
            try remove(path, parent, name)
            file = openat(parent, name, flags, mode)
        }
        guard file >= 0 else { throw system("open", path) }
        return file
    }

    private func writeFile(
        _ entry: TarEntry, _ reader: TarReader, _ path: String, in folder: String, _ name: String, opensFolder: Bool
    ) throws(ImageError) {
        try count(entry.size)
        let mode = entry.mode & 0o777 | 0o600
        let file = try makeFile(path, in: folder, name, mode, opensFolder: opensFolder)
        defer { close(file) }
        var end = 0
        while let block = try reader.block() {
            guard block.offset >= end, block.offset + block.bytes.count <= entry.size else {
                throw fail(.verification, "the file '\(printable(entry.path))' is not as large as it says", nil)
            }
            try write(block.bytes, at: block.offset, to: file, path)
            end = block.offset + block.bytes.count
        }
        if end < entry.size, ftruncate(file, off_t(entry.size)) != 0 { throw system("ftruncate", path) }
        if mode & ~umask != mode { fchmod(file, mode) }
        var times = [entry.modified, entry.modified]
        futimens(file, &times)
        for attribute in entry.attributes {
            // A file system without them loses nothing that matters.
            _ = attribute.value.withUnsafeBytes { fsetxattr(file, attribute.name, $0.baseAddress, $0.count, 0) }
        }
    }

    private func count(_ size: Int) throws(ImageError) {
        guard size <= limits.fileByteCount else {
            throw fail(.limit, "has a file of \(size) bytes; the limit is \(limits.fileByteCount)", nil)
        }
        apparentByteCount += size
        guard apparentByteCount <= limits.totalByteCount else {
            throw fail(.limit, "has more than \(limits.totalByteCount) bytes of files", nil)
        }
    }

    private func write(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, to file: Int32, _ path: String
    ) throws(ImageError) {
        var done = 0
        while done < bytes.count {
            let count = pwrite(file, bytes.baseAddress?.advanced(by: done), bytes.count - done, off_t(offset + done))
            guard count > 0 else { throw system("write", path) }
            done += count
        }
    }

    private func makeLink(_ entry: TarEntry, _ path: String, _ parent: Int32, _ name: String) throws(ImageError) {
        guard !entry.target.isEmpty, entry.target.utf8.count <= limits.pathByteCount else {
            throw hostile(entry, "is a link to a name of \(entry.target.utf8.count) bytes")
        }
        if symlinkat(entry.target, parent, name) != 0 {
            guard errno == EEXIST else { throw system("symlink", path) }
            try remove(path, parent, name)
            guard symlinkat(entry.target, parent, name) == 0 else { throw system("symlink", path) }
        }
        nodes[path] = .link(entry.target)
    }

    private func makeHardLink(_ entry: TarEntry, _ path: String, _ parent: Int32, _ name: String) throws(ImageError) {
        guard !entry.target.hasPrefix("/") else {
            throw hostile(entry, "is a hard link to the absolute path '\(printable(entry.target))'")
        }
        let parts = components(entry.target[...])
        guard let last = parts.last, !parts.contains(".."), entry.target.utf8.count <= limits.pathByteCount else {
            throw hostile(entry, "is a hard link to '\(printable(entry.target))', which leads out of the image")
        }
        for index in parts.indices.dropLast() {
            if case .link = nodes[parts[...index].joined(separator: "/")] {
                throw hostile(entry, "is a hard link through the link '\(parts[...index].joined(separator: "/"))'")
            }
        }
        let target = parts.joined(separator: "/")
        guard target != path else { return }
        var information = stat()
        if case nil = nodes[parts.dropLast().joined(separator: "/")] {
            record.pendingHardLinks[path] = target
            return
        }
        let folder = try openFolder(parts.dropLast().joined(separator: "/"))
        guard fstatat(folder, String(last), &information, AT_SYMLINK_NOFOLLOW) == 0 else {
            record.pendingHardLinks[path] = target
            return
        }
        guard information.st_mode & S_IFMT == S_IFREG else {
            throw hostile(entry, "is a hard link to '\(printable(target))', which is no file")
        }
        if linkat(folder, String(last), parent, name, 0) != 0 {
            guard errno == EEXIST else { throw system("link", path) }
            try remove(path, parent, name)
            guard linkat(folder, String(last), parent, name, 0) == 0 else { throw system("link", path) }
        }
    }

    /// Makes room for an entry that comes again as something else.
    private func remove(_ path: String, _ parent: Int32, _ name: String) throws(ImageError) {
        if case .folder = nodes[path] {
            forgetFolders(below: path)
            removeTree("\(rootPath)/\(path)")
            nodes = nodes.filter { $0.key != path && !$0.key.hasPrefix(path + "/") }
            implied = implied.filter { $0 != path && !$0.hasPrefix(path + "/") }
            folderTimes = folderTimes.filter { $0.key != path && !$0.key.hasPrefix(path + "/") }
            return
        }
        nodes[path] = nil
        guard unlinkat(parent, name, 0) == 0 else { throw system("unlink", path) }
    }

    // MARK: Folders

    /// The folder an entry lies in, as a path without links; made when the layer did not bring it.
    private func resolveParent(_ written: Substring, _ entry: TarEntry) throws(ImageError) -> String {
        if let last = lastFolder, last.written == written { return last.path }
        let parts = components(written)
        guard parts.count < limits.depth else {
            throw fail(
                .limit, "an entry lies \(parts.count + 1) folders deep; the limit is \(limits.depth)", nil)
        }
        guard !parts.contains("..") else { throw hostile(entry, "leads out of the image") }
        var followed = 0
        let path = try resolve(parts, from: "", entry, &followed, mayMake: true)
        lastFolder = (written, path)
        return path
    }

    /// The path without links that `parts` lead to, from `start`.
    private func resolve(
        _ parts: [Substring], from start: String, _ entry: TarEntry, _ followed: inout Int, mayMake: Bool
    ) throws(ImageError) -> String {
        var current = start
        for part in parts {
            if part == ".." {
                guard !current.isEmpty else { throw hostile(entry, "goes through a link that leads out of the image") }
                current = parted(current).folder
                continue
            }
            let next = current.isEmpty ? String(part) : "\(current)/\(part)"
            switch nodes[next] {
            case .folder: current = next
            case .link(let target):
                followed += 1
                guard followed <= Self.followLimit else { throw hostile(entry, "goes through links in a circle") }
                let steps = components(target[...])
                current = try resolve(
                    steps, from: target.hasPrefix("/") ? "" : current, entry, &followed, mayMake: false)
            case nil:
                guard mayMake else {
                    throw hostile(entry, "goes through a link to '\(printable(next))', which the layer does not have")
                }
                try imply(next)
                current = next
            }
        }
        return current
    }

    private func imply(_ path: String) throws(ImageError) {
        let (parent, name) = parted(path)
        guard mkdirat(try openFolder(parent), name, 0o755) == 0 else {
            if errno == EEXIST {
                throw fail(
                    .hostileLayer, "'\(printable(path))' is a file and then a folder", "the image was made wrong")
            }
            throw system("mkdir", path)
        }
        nodes[path] = .folder
        implied.insert(path)
    }

    /// Opens a folder that is known to have no links in its path; the kernel holds it to that.
    private func openFolder(_ path: String) throws(ImageError) -> Int32 {
        if path.isEmpty { return root }
        if let index = openFolders.lastIndex(where: { $0.path == path }) { return openFolders[index].descriptor }
        var descriptor = andiron_open_without_links(root, path, pathOnly | O_DIRECTORY | O_CLOEXEC, 0)
        if descriptor < 0, errno == ENOSYS || errno == EPERM { descriptor = walk(path) }
        guard descriptor >= 0 else { throw system("openat2", path) }
        if openFolders.count == Self.openFolderLimit {
            close(openFolders.removeFirst().descriptor)
        }
        openFolders.append((path, descriptor))
        return descriptor
    }

    /// The same for kernels before 5.6: one component at a time.
    private func walk(_ path: String) -> Int32 {
        var current = root
        for part in components(path[...]) {
            let next = openat(current, String(part), pathOnly | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            if current != root { close(current) }
            guard next >= 0 else { return -1 }
            current = next
        }
        return current
    }

    private func forgetFolders(below path: String) {
        lastFolder = nil
        for folder in openFolders where folder.path == path || folder.path.hasPrefix(path + "/") {
            close(folder.descriptor)
        }
        openFolders.removeAll { $0.path == path || $0.path.hasPrefix(path + "/") }
    }

    private func system(_ call: String, _ path: String) -> ImageError {
        let error = SystemError(errno: errno, call: call, subject: path)
        if error.symbol == "ENOTDIR" {
            return fail(.hostileLayer, "'\(printable(path))' is a file and then a folder", "the image was made wrong")
        }
        return fail(
            .store, error.message,
            error.symbol == "ENOSPC" ? "free some space, for example with: andiron image prune" : nil)
    }
}

/// `O_PATH`: a descriptor that only names; glibc declares it under _GNU_SOURCE only.
private let pathOnly: Int32 = 0o10000000

/// The text with nothing in it that a terminal would act on, and not too long.
func printable(_ text: String) -> String {
    let clean = String(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? "?" : Character($0) })
    return clean.count > 120 ? clean.prefix(120) + "…" : clean
}

/// The bits that the kernel takes off the modes of new files.
private func processUmask() -> UInt32 {
    guard let file = fopen("/proc/self/status", "r") else { return 0o777 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, Int32(line.count), file) != nil {
        let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        if text.hasPrefix("Umask:") { return UInt32(text.dropFirst(6).filter(\.isNumber), radix: 8) ?? 0o777 }
    }
    return 0o777
}
