/// Staged blocks of uploads, as files until they are committed.
internal import CLinux
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc

/// A block that waits to be committed.
public struct StagedBlock: Sendable, Equatable {
    /// The id as it was given, in Base64.
    public let id: String
    public let byteCount: Int
}

extension BlobFolder {
    /// Seconds after which a block that was not committed is dropped.
    static let blockLifetime = 7 * 86_400

    private func blockFolder(of address: BlobAddress) -> String {
        "\(privateFolder)/blocks/\(SHA256Digest(of: Array("\(address)".utf8)))"
    }

    private func fileName(_ id: String) -> String { id.replacing("/", with: "_") }

    /// Keeps a block.
    public func stage(
        _ address: BlobAddress, block id: String, _ contents: [UInt8], temporaryName: String
    ) -> Result<Void, StorageError> {
        let folder = blockFolder(of: address)
        do throws(SystemError) {
            try createFolders(folder)
            try writeFileAtomically("\(folder)/\(fileName(id))", contents)
            return .success(())
        } catch {
            return .failure(
                error.symbol == "ENOSPC"
                    ? .noRoom(blob: "\(address)") : .unwritable(blob: "\(address)", reason: error.message))
        }
    }

    /// The contents of blocks one after the other; nil when one of them is not there.
    public func blocks(of address: BlobAddress, _ ids: [String]) -> Result<[UInt8]?, StorageError> {
        let folder = blockFolder(of: address)
        var contents: [UInt8] = []
        for id in ids {
            guard let block = readFile("\(folder)/\(fileName(id))") else { return .success(nil) }
            contents += block
        }
        return .success(contents)
    }

    /// The blocks that wait, in the order of their names.
    public func stagedBlocks(of address: BlobAddress) -> [StagedBlock] {
        let folder = blockFolder(of: address)
        return folderEntries(folder).filter { !$0.hasSuffix(".tmp") }.compactMap { name in
            var information = stat()
            guard stat("\(folder)/\(name)", &information) == 0 else { return nil }
            return StagedBlock(id: name.replacing("_", with: "/"), byteCount: Int(information.st_size))
        }
    }

    /// Drops the blocks of a blob.
    public func removeBlocks(of address: BlobAddress) { removeBlockFolder(blockFolder(of: address)) }

    private func removeBlockFolder(_ folder: String) {
        for name in folderEntries(folder) { unlink(folder + "/" + name) }
        rmdir(folder)
    }

    /// Drops blocks that nobody has committed for a week.
    func removeOldBlocks() {
        let blocks = privateFolder + "/blocks"
        let now = time(nil)
        for name in folderEntries(blocks) {
            var information = stat()
            guard stat("\(blocks)/\(name)", &information) == 0, now - information.st_mtim.tv_sec > Self.blockLifetime
            else {
                continue
            }
            removeBlockFolder("\(blocks)/\(name)")
        }
    }

    /// Makes a container; false when it is there.
    public func createContainer(_ name: String) -> Result<Bool, StorageError> {
        if mkdir("\(root)/\(name)", 0o755) == 0 { return .success(true) }
        if errno == EEXIST { return .success(false) }
        return .failure(.folder(path: root, reason: String(cString: strerror(errno))))
    }

    /// Removes a container with all its blobs; false when there is none.
    public func deleteContainer(_ name: String, temporaryName: String) -> Result<Bool, StorageError> {
        // Moved away first, so that it is gone at once and whole.
        let aside = "\(privateFolder)/uploads/\(temporaryName)"
        guard rename("\(root)/\(name)", aside) == 0 else {
            if errno == ENOENT { return .success(false) }
            return .failure(.folder(path: "\(root)/\(name)", reason: String(cString: strerror(errno))))
        }
        removeTree(aside)
        return .success(true)
    }

    /// Removes a file, or a folder with all that is in it. Links are removed, not followed.
    func removeTree(_ path: String) {
        var information = stat()
        guard lstat(path, &information) == 0 else { return }
        guard information.st_mode & S_IFMT == S_IFDIR else {
            unlink(path)
            return
        }
        for name in folderEntries(path) { removeTree(path + "/" + name) }
        rmdir(path)
    }
}
