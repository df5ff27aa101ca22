/// Everything that came from registries, by digest, in the cache folder; shared by all apps and hosts.
///
///     images/v1/blobs/<hex>      manifests, configurations, and layers that were packaged here
///     images/v1/partial/<hex>    layers on their way, as they come
///     images/v1/layers/<hex>/    unpacked layers by the digest of their uncompressed contents: fs, record.json, state
///     images/v1/roots/<hex>/     images put together from layers, by the digest of their manifest
///     images/v1/names/<hash>     what a tag stood for when it was pulled last
///     images/v1/locks/           one file per thing that is being made or used
///     images/v1/trash/           what is being deleted
///
/// Whatever has a final name was verified. It is made under another name and renamed.
internal import CArchive
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc
internal import JSONText

/// Paths and rules of the store; every call may block.
public struct ContentStore: Sendable {
    /// Absolute.
    public let folder: String

    /// - Parameter cacheFolder: Andiron's.
    public init(cacheFolder: String) { folder = cacheFolder + "/images/v1" }

    func blobPath(_ digest: Digest) -> String { "\(folder)/blobs/\(digest.hex)" }
    func partialPath(_ digest: Digest) -> String { "\(folder)/partial/\(digest.hex)" }
    func layerFolder(_ diffID: Digest) -> String { "\(folder)/layers/\(diffID.hex)" }
    func rootFolder(_ manifest: Digest) -> String { "\(folder)/roots/\(manifest.hex)" }

    func failure(_ error: SystemError, image: String, step: String) -> ImageError {
        ImageError(
            .store, image: image, step: step, error.message,
            remedy: error.symbol == "ENOSPC"
                ? "free some space, for example with: andiron image prune" : "check \(folder) and its permissions")
    }

    func prepare(image: String) throws(ImageError) {
        do {
            for name in ["blobs", "partial", "layers", "roots", "locks", "names", "trash"] {
                try createFolders("\(folder)/\(name)")
            }
            spreadChildren(of: "\(folder)/trash")
        } catch {
            throw failure(error, image: image, step: "store")
        }
    }

    // MARK: Blobs

    /// A blob's bytes, verified; nil when it is not here. One that was damaged is removed.
    func blob(_ digest: Digest, limit: Int) -> [UInt8]? {
        guard let bytes = readFile(blobPath(digest), limit: limit + 1), bytes.count <= limit else { return nil }
        if Digest(of: bytes) == digest { return bytes }
        unlink(blobPath(digest))
        return nil
    }

    @discardableResult
    func keep(_ bytes: [UInt8], image: String) throws(ImageError) -> Digest {
        let digest = Digest(of: bytes)
        do throws(SystemError) {
            try writeFileAtomically(blobPath(digest), bytes)
        } catch {
            throw failure(error, image: image, step: "store")
        }
        return digest
    }

    // MARK: Names

    private func namePath(_ reference: ImageReference) -> String {
        "\(folder)/names/\(Digest(of: Array("\(reference)".utf8)).hex)"
    }

    /// What a name stood for when it was pulled last.
    public func lastDigest(of reference: ImageReference) -> Digest? {
        if let digest = reference.digest { return digest }
        return readFile(namePath(reference), limit: 100).flatMap { Digest(String(decoding: $0, as: UTF8.self)) }
    }

    func remember(_ digest: Digest, for reference: ImageReference) {
        // A note that cannot be kept is one that will be missed.
        try? writeFileAtomically(namePath(reference), Array("\(digest)".utf8))
    }

    // MARK: Layers

    /// Whether an unpacked layer is here and whole.
    ///
    /// A layer is written to disk in its own time. Until it is, its `state` names the boot it was made in, and
    /// after another boot it is not believed.
    func hasLayer(_ diffID: Digest) -> Bool { isBelieved(layerFolder(diffID)) }

    /// Whether a layer or root is whole; one that is not is thrown away.
    func isBelieved(_ path: String) -> Bool {
        guard let bytes = readFile(path + "/state", limit: 100) else { return false }
        let state = String(decoding: bytes, as: UTF8.self)
        if state == "durable" || state == bootID() { return true }
        discard(path)
        return false
    }

    /// Makes the folder a layer is unpacked into. The name it is made with decides where on the disk its files are
    /// (``spreadChildren(of:)``), so that is another each time; it is made where a kill leaves it to be deleted.
    func makeLayerFolder(_ temporary: String) throws(SystemError) {
        let unique = "\(folder)/trash/\(Self.newPrefix)\(getpid()).\(monotonicNanoseconds())"
        for path in [unique, unique + "/fs"] where mkdir(path, 0o755) != 0 {
            throw SystemError(errno: errno, call: "mkdir", subject: path)
        }
        guard rename(unique, temporary) == 0 else {
            throw SystemError(errno: errno, call: "rename", subject: temporary)
        }
    }

    /// Notes that a layer or root is whole, as long as this machine runs.
    func markWhole(_ path: String) throws(SystemError) {
        try writeFileAtomically(path + "/state", Array(bootID().utf8))
    }

    /// Gives an unpacked layer its final name.
    func commitLayer(_ temporary: String, _ diffID: Digest) throws(SystemError) {
        try markWhole(temporary)
        let final = layerFolder(diffID)
        if rename(temporary, final) != 0 {
            let reason = errno
            // Another host was faster; both made the same.
            if hasLayer(diffID) { return discard(temporary) }
            throw SystemError(errno: reason, call: "rename", subject: final)
        }
    }

    /// Writes an image to the disk for good; takes its time, so after the start.
    public func makeDurable(_ image: PulledImage) {
        let root = image.root.hasSuffix("/fs") ? String(image.root.dropLast(3)) : image.root
        let waiting = (image.layers.map(layerFolder) + [root]).filter {
            readFile($0 + "/state", limit: 100) != Array("durable".utf8)
        }
        guard !waiting.isEmpty else { return }
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        guard andiron_sync_file_system(descriptor) == 0 else { return }
        for path in waiting { try? writeFileAtomically(path + "/state", Array("durable".utf8)) }
    }

    // MARK: Deleting

    /// Moves something out of sight; it is deleted later, because deleting slows down unpacking.
    func discard(_ path: String) {
        let name = path.split(separator: "/").last.map(String.init) ?? "thing"
        let target = "\(folder)/trash/\(name).\(getpid()).\(monotonicNanoseconds())"
        if rename(path, target) != 0, errno != ENOENT { removeTree(path) }
    }

    /// What is made in the trash, to be moved out of it at once.
    private static let newPrefix = "new."
    /// Seconds after which it was left there by a kill.
    private static let newFolderAge = 60

    /// Deletes what was discarded.
    public func emptyTrash() {
        for name in folderEntries(folder + "/trash") {
            let path = "\(folder)/trash/\(name)"
            if name.hasPrefix(Self.newPrefix), age(path) < Self.newFolderAge { continue }
            removeTree(path)
        }
    }

    // MARK: Locks

    /// Takes a lock without waiting; nil when another has it. The descriptor holds it.
    func tryLock(_ name: String, shared: Bool = false) -> Int32? {
        let path = "\(folder)/locks/\(name)"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return nil }
        if flock(descriptor, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0 { return descriptor }
        close(descriptor)
        return nil
    }
}

/// The kernel's name for the time since it was started.
private func bootID() -> String {
    let bytes = readFile("/proc/sys/kernel/random/boot_id", limit: 64) ?? []
    return String(decoding: bytes.filter { $0 > 0x20 }, as: UTF8.self)
}

/// Removes a file, or a folder and all below it, never following links; missing is fine.
public func removeTree(_ path: String) { removeTree(path, in: AT_FDCWD) }

/// The same by a name in an open folder: what lies deep may have a longer path than the kernel takes at a time.
private func removeTree(_ name: String, in parent: Int32) {
    var information = stat()
    guard fstatat(parent, name, &information, AT_SYMLINK_NOFOLLOW) == 0 else { return }
    guard information.st_mode & S_IFMT == S_IFDIR else {
        unlinkat(parent, name, 0)
        return
    }
    if information.st_mode & 0o700 != 0o700 { fchmodat(parent, name, 0o700, 0) }
    let folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if folder >= 0 {
        for entry in folderEntries(of: folder) { removeTree(entry, in: folder) }
        close(folder)
    }
    unlinkat(parent, name, AT_REMOVEDIR)
}

/// Tells the file system that what is made in a folder has nothing to do with each other (`chattr +T`), where it knows that.
///
/// ext4 puts a new folder beside its parent, and looks at each free inode there whether it was deleted within the last
/// minutes, for each file it makes: where a large tree was deleted, 32 000 files take 14 s instead of 1 s. With the
/// mark it chooses another part of the disk by the new folder's name (decision 014).
func spreadChildren(of folder: String) {
    let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    // Another file system has no such mark and needs none.
    _ = andiron_mark_top_of_hierarchies(descriptor)
    close(descriptor)
}
