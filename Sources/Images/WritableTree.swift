/// What an app may write to: a copy of its part of an image, thrown away when the app is recycled, as a container's
/// writable layer is. The image itself is shared and stays as it was pulled.
internal import CArchive
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc

/// Copies the folders an app lives in and links the rest; blocking.
public struct WritableTree: Sendable {
    /// Files up to so many bytes are copied; larger ones, models mostly, are linked and made read-only, unless the
    /// file system shares their blocks until one of them is written.
    public static let copiedFileByteLimit = 16 << 20

    /// A folder of this name is linked as it is: installed packages, thousands of files that nobody writes to.
    private static let packages = ".python_packages"
    /// Where Azure ML's images have the script and its models.
    private static let appRoot = "var/azureml-app"

    private let root: String
    private let folders: [String]
    private let image: String

    /// - Parameters:
    ///   - root: the image's files.
    ///   - scriptRoot: the folder with host.json, seen from the image's root.
    ///   - image: as the user would name it.
    public init(root: String, scriptRoot: String, image: String) {
        self.root = root
        folders = [String(absolutePath(scriptRoot, in: "/").dropFirst()), Self.appRoot]
        self.image = image
    }

    /// Makes the tree in `target`, which does not exist yet; what is left of a failure is removed.
    public func make(in target: String) throws(ImageError) {
        do throws(SystemError) {
            try createFolders(target)
            try enclose("", target, target)
        } catch {
            removeTree(target)
            throw ImageError(
                .store, image: image, step: "load", error.message,
                remedy: error.symbol == "ENOSPC"
                    ? "free some space, for example with: andiron image prune"
                    : "check \(target) and its permissions, or choose another place with --state-folder")
        }
    }

    /// A folder on the way to those that are copied: everything else in it is linked.
    private func enclose(_ folder: String, _ target: String, _ tree: String) throws(SystemError) {
        for name in folderEntries(folder.isEmpty ? root : "\(root)/\(folder)") {
            let path = folder.isEmpty ? name : "\(folder)/\(name)"
            let copy = "\(target)/\(name)"
            if folders.contains(where: { $0 == path || $0.isEmpty }) {
                try copyEntry("\(root)/\(path)", copy, tree)
            } else if folders.contains(where: { $0.hasPrefix(path + "/") }), isFolder("\(root)/\(path)") {
                try check(mkdir(copy, 0o755), "mkdir", copy)
                try enclose(path, copy, tree)
            } else {
                try check(symlink("\(root)/\(path)", copy), "symlink", copy)
            }
        }
    }

    private func copyEntry(_ source: String, _ copy: String, _ tree: String) throws(SystemError) {
        var information = stat()
        try check(lstat(source, &information), "lstat", source)
        switch information.st_mode & S_IFMT {
        case S_IFLNK:
            let text = linkText(source)
            if text.hasPrefix(root + "/") {
                try check(symlink(tree + text.dropFirst(root.count), copy), "symlink", copy)
            } else if text.hasPrefix("/"), isFolder(source) {
                // The store's own link to a folder that one layer has alone.
                try copyFolder(source, copy, tree)
            } else {
                try check(symlink(text, copy), "symlink", copy)
            }
        case S_IFDIR: try copyFolder(source, copy, tree)
        default: try copyFile(source, copy, information)
        }
    }

    private func copyFolder(_ source: String, _ copy: String, _ tree: String) throws(SystemError) {
        try check(mkdir(copy, 0o755), "mkdir", copy)
        for name in folderEntries(source) {
            if name == Self.packages {
                try check(symlink("\(source)/\(name)", "\(copy)/\(name)"), "symlink", "\(copy)/\(name)")
            } else {
                try copyEntry("\(source)/\(name)", "\(copy)/\(name)", tree)
            }
        }
    }

    private func copyFile(_ source: String, _ copy: String, _ information: stat) throws(SystemError) {
        let mode = information.st_mode & 0o777 | 0o600
        let from = open(source, O_RDONLY | O_CLOEXEC)
        try check(from, "open", source)
        defer { close(from) }
        let to = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        try check(to, "open", copy)
        defer { close(to) }
        if andiron_share_blocks(to, from) != 0 {
            if Int(information.st_size) > Self.copiedFileByteLimit {
                unlink(copy)
                try check(symlink(source, copy), "symlink", copy)
                // A file of another user's store stays as it is, and cannot be written to either.
                if information.st_mode & 0o222 != 0 { chmod(source, information.st_mode & 0o555) }
                return
            }
            guard let bytes = readFile(source, limit: Self.copiedFileByteLimit) else {
                throw SystemError(errno: errno, call: "read", subject: source)
            }
            var done = 0
            while done < bytes.count {
                let count = bytes.withUnsafeBytes { write(to, $0.baseAddress?.advanced(by: done), bytes.count - done) }
                if count < 0, errno == EINTR { continue }
                try check(Int32(clamping: count), "write", copy)
                done += count
            }
        }
        var times = [information.st_mtim, information.st_mtim]
        futimens(to, &times)
    }

    private func linkText(_ path: String) -> String {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink(path, &buffer, buffer.count)
        return String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private func check(_ result: Int32, _ call: String, _ path: String) throws(SystemError) {
        if result < 0 { throw SystemError(errno: errno, call: call, subject: path) }
    }
}
