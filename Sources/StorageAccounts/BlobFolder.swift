/// Blobs as files in a folder, one sub-folder a container; blocking calls, for use off the loop.
///
/// A blob's content type is the extended attribute `user.mime_type`, each of its metadata `user.metadata.<name>`, other
/// headers `user.header.<name>`: they move with the file, are replaced with it, and can be set with `setfattr`
/// (docs/decisions/020-blobs-as-files.md).
internal import CLinux
internal import ConfigurationFiles
internal import EventLoops
internal import FunctionApps
internal import Glibc
internal import Synchronization

/// What reading a blob came to.
public enum BlobReading: Sendable {
    case blob(Blob)
    /// It is not there (any more).
    case gone
    /// Somebody has it open for writing.
    case beingWritten
    case failed(StorageError)
}

/// The files below one storage folder. Holds no state.
public struct BlobFolder: Sendable {
    /// Absolute.
    public let root: String
    /// The host's own files; no container.
    public var privateFolder: String { root + "/.andiron" }
    private var uploads: String { privateFolder + "/uploads" }

    public init(root: String) { self.root = root }

    /// Makes the folder and what the host needs in it.
    public func prepare() throws(StorageError) {
        try makeFolders()
        guard access(uploads, W_OK) == 0 else {
            throw StorageError.folder(path: root, reason: String(cString: strerror(errno)))
        }
    }

    /// Removes what a killed host left half-written; only for who has the folder to himself.
    func removeUploads() {
        for name in folderEntries(uploads) where !name.hasPrefix("cli-") { removeTree(uploads + "/" + name) }
        removeOldBlocks()
    }

    public func path(of address: BlobAddress) -> String { "\(root)/\(address.container)/\(address.name)" }

    /// An ETag out of what changes when a file is written or replaced.
    static func etag(_ information: stat) -> String {
        var hash = UInt64(information.st_ino) &* 0x9E37_79B9_7F4A_7C15
        for word in [
            UInt64(bitPattern: Int64(information.st_size)), UInt64(bitPattern: Int64(information.st_mtim.tv_sec)),
            UInt64(bitPattern: Int64(information.st_mtim.tv_nsec)),
        ] {
            hash ^= word
            hash = (hash ^ hash >> 30) &* 0xBF58_476D_1CE4_E5B9
            hash = (hash ^ hash >> 27) &* 0x94D0_49BB_1331_11EB
            hash ^= hash >> 31
        }
        let digits = String(hash >> 12, radix: 16, uppercase: true)
        return "0x8D" + String(repeating: "0", count: 13 - digits.count) + digits
    }

    // MARK: Reading

    private func openContainer(_ container: String) -> Int32 {
        open("\(root)/\(container)", O_DIRECTORY | O_CLOEXEC | O_RDONLY)
    }

    /// Reads a blob in one piece: nobody had it open for writing meanwhile.
    ///
    /// - Parameter wasClosed: a writer is known to have finished; matters only where leases do not exist.
    public func read(_ address: BlobAddress, limit: Int, wasClosed: Bool = true) -> BlobReading {
        guard isBlobName(address.name) else { return .failed(.badName(address.name)) }
        let container = openContainer(address.container)
        guard container >= 0 else { return .gone }
        defer { close(container) }
        var information = stat()
        guard fstatat(container, address.name, &information, 0) == 0 else { return failure(address, errno) }
        if let kind = kindName(information.st_mode) { return .failed(.notAFile(blob: "\(address)", kind: kind)) }
        let descriptor = andiron_open_beneath(container, address.name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0)
        guard descriptor >= 0 else { return failure(address, errno) }
        defer { close(descriptor) }
        let lease = andiron_take_read_lease(descriptor)
        if lease != 0, errno == EAGAIN { return .beingWritten }
        defer { if lease == 0 { _ = andiron_release_lease(descriptor) } }
        guard fstat(descriptor, &information) == 0 else { return failure(address, errno) }
        if lease != 0, !wasClosed, isFresh(information) { return .beingWritten }
        guard information.st_size <= limit else {
            return .failed(.tooLarge(blob: "\(address)", byteCount: Int(information.st_size), limit: limit))
        }
        guard let contents = readAll(descriptor, Int(information.st_size)) else { return failure(address, errno) }
        var after = stat()
        guard fstat(descriptor, &after) == 0, Self.etag(after) == Self.etag(information),
            contents.count == Int(information.st_size)
        else { return .beingWritten }
        return .blob(Blob(properties: properties(descriptor, information), contents: contents))
    }

    /// Properties alone; nil when there is no such blob.
    public func properties(_ address: BlobAddress) -> Result<BlobProperties?, StorageError> {
        guard isBlobName(address.name) else { return .failure(.badName(address.name)) }
        let container = openContainer(address.container)
        guard container >= 0 else { return .success(nil) }
        defer { close(container) }
        var information = stat()
        guard fstatat(container, address.name, &information, 0) == 0, kindName(information.st_mode) == nil else {
            return .success(nil)
        }
        let descriptor = andiron_open_beneath(container, address.name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0)
        guard descriptor >= 0, fstat(descriptor, &information) == 0 else {
            if case .failed(let error) = failure(address, errno) { return .failure(error) }
            return .success(nil)
        }
        defer { close(descriptor) }
        return .success(properties(descriptor, information))
    }

    private func failure(_ address: BlobAddress, _ number: Int32) -> BlobReading {
        switch number {
        case ENOENT, ENOTDIR: .gone
        case EXDEV, ELOOP: .failed(.linkLeadsOut(blob: "\(address)"))
        default: .failed(.unreadable(blob: "\(address)", reason: String(cString: strerror(number))))
        }
    }

    private func kindName(_ mode: UInt32) -> String? {
        switch mode & S_IFMT {
        case S_IFREG: nil
        case S_IFDIR: "a folder"
        case S_IFIFO: "a pipe"
        case S_IFSOCK: "a socket"
        default: "a device"
        }
    }

    /// Changed within the last quarter of a second, or in the future of a clock that was set back.
    private func isFresh(_ information: stat) -> Bool {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let age =
            (now.tv_sec - information.st_mtim.tv_sec) * 1000
            + (now.tv_nsec - information.st_mtim.tv_nsec) / 1_000_000
        return (0..<250).contains(age)
    }

    private func readAll(_ descriptor: Int32, _ size: Int) -> [UInt8]? {
        var failed = false
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { memory, filled in
            while filled < size {
                let count = Glibc.read(descriptor, memory.baseAddress?.advanced(by: filled), size - filled)
                if count < 0 { failed = true }
                guard count > 0 else { return }
                filled += count
            }
        }
        return failed ? nil : bytes
    }

    func properties(_ descriptor: Int32, _ information: stat) -> BlobProperties {
        var properties = BlobProperties(
            etag: Self.etag(information),
            lastModified: Double(information.st_mtim.tv_sec) + Double(information.st_mtim.tv_nsec) / 1e9,
            byteCount: Int(information.st_size))
        for (name, value) in attributes(descriptor) {
            if name == "user.mime_type" {
                properties.contentType = value
            } else if name.hasPrefix("user.metadata.") {
                properties.metadata.append((String(name.dropFirst(14)), value))
            } else if name.hasPrefix("user.header.") {
                properties.headers.append((String(name.dropFirst(12)), value))
            }
        }
        return properties
    }

    private func attributes(_ descriptor: Int32) -> [(name: String, value: String)] {
        let length = flistxattr(descriptor, nil, 0)
        guard length > 0 else { return [] }
        var names = [CChar](repeating: 0, count: length)
        guard flistxattr(descriptor, &names, length) == length else { return [] }
        return names.split(separator: 0).compactMap { slice in
            let name = String(decoding: slice.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            guard name.hasPrefix("user.") else { return nil }
            let size = fgetxattr(descriptor, name, nil, 0)
            guard size >= 0 else { return nil }
            var value = [UInt8](repeating: 0, count: size)
            guard fgetxattr(descriptor, name, &value, size) == size else { return nil }
            return (name, String(decoding: value, as: UTF8.self))
        }.sorted { $0.0 < $1.0 }
    }

    // MARK: Writing

    private static let placing = Mutex(())

    /// Writes a blob beside its place, makes it durable, and moves it there.
    public func write(
        _ address: BlobAddress, _ contents: [UInt8], _ headers: BlobHeaders, temporaryName: String,
        condition: BlobCondition? = nil
    ) -> Result<BlobProperties, StorageError> {
        guard isBlobName(address.name), isContainerName(address.container) else {
            return .failure(.badName("\(address)"))
        }
        let temporary = uploads + "/" + temporaryName
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return .failure(writeError(address, errno)) }
        defer { close(descriptor) }
        var result: Result<BlobProperties, StorageError>
        do throws(StorageError) {
            try fill(descriptor, contents, headers, address)
            result = .success(try place(temporary, descriptor, address, condition))
        } catch {
            result = .failure(error)
            unlink(temporary)
        }
        return result
    }

    private func fill(
        _ descriptor: Int32, _ contents: [UInt8], _ headers: BlobHeaders, _ address: BlobAddress
    ) throws(StorageError) {
        var offset = 0
        while offset < contents.count {
            let count = contents.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress?.advanced(by: offset), $0.count - offset)
            }
            guard count > 0 else { throw writeError(address, errno) }
            offset += count
        }
        try setAttributes(descriptor, headers, address)
        guard fsync(descriptor) == 0 else { throw writeError(address, errno) }
    }

    func setAttributes(_ descriptor: Int32, _ headers: BlobHeaders, _ address: BlobAddress) throws(StorageError) {
        var attributes = headers.metadata.map { ("user.metadata.\($0.name)", $0.value) }
        attributes += headers.other.map { ("user.header.\($0.name)", $0.value) }
        if headers.contentType != BlobProperties.defaultContentType {
            attributes.append(("user.mime_type", headers.contentType))
        }
        for (name, value) in attributes {
            let bytes = Array(value.utf8)
            guard fsetxattr(descriptor, name, bytes, bytes.count, 0) == 0 else {
                if errno == ENOSPC || errno == E2BIG || errno == ERANGE {
                    throw StorageError.unwritable(blob: "\(address)", reason: "its metadata has no room (about 4 KB)")
                }
                throw writeError(address, errno)
            }
        }
    }

    private func place(
        _ temporary: String, _ descriptor: Int32, _ address: BlobAddress, _ condition: BlobCondition?
    ) throws(StorageError) -> BlobProperties {
        if mkdir("\(root)/\(address.container)", 0o755) != 0, errno != EEXIST { throw writeError(address, errno) }
        let (folder, name) = try openParent(of: address, creating: true)
        defer { close(folder) }
        // Nobody of this process comes between the look and the move.
        let number = Self.placing.withLock { _ -> Int32? in
            if let condition {
                var current = stat()
                let exists = fstatat(folder, name, &current, 0) == 0
                guard condition.holds(for: exists ? Self.etag(current) : nil) else { return nil }
            }
            return renameat(AT_FDCWD, temporary, folder, name) == 0 ? 0 : errno
        }
        guard let number else { throw StorageError.conditionNotMet(blob: "\(address)") }
        guard number == 0 else { throw writeError(address, number) }
        fsync(folder)
        var information = stat()
        guard fstat(descriptor, &information) == 0 else { throw writeError(address, errno) }
        return properties(descriptor, information)
    }

    /// The folder a blob lies in, open, and the last part of its name. Links that lead out are refused.
    func openParent(of address: BlobAddress, creating: Bool) throws(StorageError) -> (folder: Int32, name: String) {
        var folder = openContainer(address.container)
        guard folder >= 0 else { throw writeError(address, errno) }
        let parts = address.name.split(separator: "/").map(String.init)
        for part in parts.dropLast() {
            var next = andiron_open_beneath(folder, part, O_RDONLY | O_DIRECTORY, 0)
            if next < 0, errno == ENOENT, creating, mkdirat(folder, part, 0o755) == 0 || errno == EEXIST {
                next = andiron_open_beneath(folder, part, O_RDONLY | O_DIRECTORY, 0)
            }
            let number = errno
            close(folder)
            guard next >= 0 else {
                if number == EXDEV || number == ELOOP { throw StorageError.linkLeadsOut(blob: "\(address)") }
                throw writeError(address, number)
            }
            folder = next
        }
        return (folder, parts.last ?? "")
    }

    func writeError(_ address: BlobAddress, _ number: Int32) -> StorageError {
        switch number {
        case ENOSPC, EDQUOT, EFBIG: .noRoom(blob: "\(address)")
        case ENOTDIR, EISDIR:
            .unwritable(blob: "\(address)", reason: "a folder and a blob cannot have the same name here")
        default: .unwritable(blob: "\(address)", reason: String(cString: strerror(number)))
        }
    }

    /// Removes a blob, and the folders that are left empty; false when there was none.
    public func delete(_ address: BlobAddress, condition: BlobCondition? = nil) -> Result<Bool, StorageError> {
        guard isBlobName(address.name) else { return .failure(.badName(address.name)) }
        do throws(StorageError) {
            let folder: Int32
            let name: String
            do throws(StorageError) {
                (folder, name) = try openParent(of: address, creating: false)
            } catch {
                return .success(false)
            }
            defer { close(folder) }
            var current = stat()
            guard fstatat(folder, name, &current, AT_SYMLINK_NOFOLLOW) == 0, current.st_mode & S_IFMT != S_IFDIR else {
                return .success(false)
            }
            if let condition, !condition.holds(for: Self.etag(current)) {
                return .failure(.conditionNotMet(blob: "\(address)"))
            }
            guard unlinkat(folder, name, 0) == 0 else { throw writeError(address, errno) }
            removeEmptyFolders(of: address)
            return .success(true)
        } catch {
            return .failure(error)
        }
    }

    private func removeEmptyFolders(of address: BlobAddress) {
        var parts = address.name.split(separator: "/").dropLast()
        while !parts.isEmpty {
            guard rmdir("\(root)/\(address.container)/\(parts.joined(separator: "/"))") == 0 else { return }
            parts = parts.dropLast()
        }
    }
}
