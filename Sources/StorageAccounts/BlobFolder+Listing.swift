/// Listing a storage folder: containers, and blobs in the order of their names.
internal import CLinux
internal import ConfigurationFiles
internal import EventLoops
internal import FunctionApps
internal import Glibc

extension BlobFolder {
    /// The containers, in order.
    public func containers() -> [String] {
        folderEntries(root).filter { isContainerName($0) && isFolder("\(root)/\($0)") }
    }

    /// Makes the folders that writing needs, and leaves what a host may be writing.
    public func makeFolders() throws(StorageError) {
        do throws(SystemError) {
            try createFolders(privateFolder + "/uploads")
        } catch {
            throw StorageError.folder(path: root, reason: error.message)
        }
    }

    /// Hands over each blob whose name begins with `prefix`, in the order of names.
    public func each(container: String, prefix: String, _ body: (String, BlobProperties) -> Void) {
        for name in names(container: container, prefix: prefix) {
            if case .success(let properties?) = properties(BlobAddress(container: container, name: name)) {
                body(name, properties)
            }
        }
    }

    /// The names of all blobs that begin with `prefix`, in the order of their bytes. Only folders that can hold some are
    /// read.
    public func names(container: String, prefix: String) -> [String] {
        let start = prefix.lastIndex(of: "/").map { String(prefix[..<$0]) } ?? ""
        let walk = TreeWalk(containerPath: "\(root)/\(container)", prefix: start)
        var found: [String] = []
        while true {
            let step = walk.step()
            found += step.blobs.lazy.map(\.name).filter { $0.hasPrefix(prefix) && isBlobName($0) }
            if step.isDone { break }
        }
        return found.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }
}

extension BlobFolder {
    /// Properties of a container; nil when there is none.
    public func containerProperties(_ name: String) -> BlobProperties? {
        let descriptor = open("\(root)/\(name)", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var information = stat()
        guard fstat(descriptor, &information) == 0 else { return nil }
        return properties(descriptor, information)
    }

    /// Replaces a container's metadata; false when there is no such container.
    public func setContainerMetadata(
        _ name: String, _ metadata: [(name: String, value: String)]
    ) -> Result<Bool, StorageError> {
        let descriptor = open("\(root)/\(name)", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return .success(false) }
        defer { close(descriptor) }
        var information = stat()
        guard fstat(descriptor, &information) == 0 else { return .success(false) }
        for pair in properties(descriptor, information).metadata {
            fremovexattr(descriptor, "user.metadata.\(pair.name)")
        }
        do throws(StorageError) {
            try setAttributes(
                descriptor, BlobHeaders(metadata: metadata), BlobAddress(container: name, name: ""))
            return .success(true)
        } catch {
            return .failure(error)
        }
    }
}
