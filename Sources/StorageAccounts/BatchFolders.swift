/// The two folders of a batch run: what is scored, and the results, each of which says what it was made of.
internal import CLinux
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc

/// Blocking calls, for use off the loop.
///
/// A result carries the ETag of its input as the extended attribute `user.andiron.source`, and is moved into its place
/// whole: a result that is there is done, whenever the run was killed.
public struct BatchFolders: Sendable {
    private let input: BlobFolder
    private let inputName: String
    private let output: String

    /// Both absolute.
    public init(input: String, output: String) {
        let slash = input.lastIndex(of: "/") ?? input.startIndex
        self.input = BlobFolder(root: String(input[..<slash]))
        inputName = String(input[slash...].dropFirst())
        self.output = output
    }

    /// The files to score, in order; hidden ones are left out.
    public func names() -> [String] {
        input.names(container: inputName, prefix: "").filter { !$0.hasPrefix(".") && !$0.contains("/.") }
    }

    /// A file, or why it cannot be had.
    public func read(_ name: String, limit: Int) -> BlobReading {
        input.read(BlobAddress(container: inputName, name: name), limit: limit)
    }

    /// Whether the result of a file, as it is now, is there.
    public func isDone(_ name: String) -> Bool {
        var source = stat()
        guard stat(input.path(of: BlobAddress(container: inputName, name: name)), &source) == 0 else { return false }
        let path = output + "/" + name
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = getxattr(path, "user.andiron.source", &bytes, bytes.count)
        if count >= 0 { return String(decoding: bytes[..<count], as: UTF8.self) == BlobFolder.etag(source) }
        guard errno == ENOTSUP else { return false }
        // Without extended attributes, a result younger than its input is its result.
        var result = stat()
        guard stat(path, &result) == 0 else { return false }
        return (result.st_mtim.tv_sec, result.st_mtim.tv_nsec) > (source.st_mtim.tv_sec, source.st_mtim.tv_nsec)
    }

    /// Writes a result durably and moves it into its place.
    public func write(_ name: String, _ contents: [UInt8], source etag: String) -> Result<Void, StorageError> {
        let path = output + "/" + name
        let temporary = "\(output)/.\(getpid()).\(newGUID()).tmp"
        do throws(SystemError) {
            try createFolders(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
        } catch {
            return .failure(.unwritable(blob: path, reason: error.message))
        }
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return .failure(error(path)) }
        defer { close(descriptor) }
        var offset = 0
        while offset < contents.count {
            let count = contents.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress?.advanced(by: offset), $0.count - offset)
            }
            guard count > 0 else {
                let failure = error(path)
                unlink(temporary)
                return .failure(failure)
            }
            offset += count
        }
        let tag = Array(etag.utf8)
        _ = fsetxattr(descriptor, "user.andiron.source", tag, tag.count, 0)
        guard fsync(descriptor) == 0, rename(temporary, path) == 0 else {
            let failure = error(path)
            unlink(temporary)
            return .failure(failure)
        }
        return .success(())
    }

    private func error(_ path: String) -> StorageError {
        errno == ENOSPC || errno == EDQUOT
            ? .noRoom(blob: path) : .unwritable(blob: path, reason: String(cString: strerror(errno)))
    }

    /// Removes what a killed run left half-written.
    public func clean() {
        for name in folderEntries(output) where name.hasPrefix(".") && name.hasSuffix(".tmp") {
            unlink(output + "/" + name)
        }
    }
}
