/// Configuration files and what is wrong with them, with file, line and column.
public import Diagnostics
public import EventLoops
internal import Glibc
public import JSONText

/// Something wrong in a configuration file. Warnings do not keep anything from running.
public struct ConfigurationProblem: HostError {
    public let code: String
    public let message: String
    public let remedy: String?
    public let place: SourcePlace?
    public let isWarning: Bool

    public var fault: Fault { .user }

    public init(
        _ code: String, _ message: String, remedy: String? = nil, place: SourcePlace? = nil, isWarning: Bool = false
    ) {
        self.code = code
        self.message = message
        self.remedy = remedy
        self.place = place
        self.isWarning = isWarning
    }

    /// As a terminal shows it; a warning says so.
    public var text: String {
        isWarning ? "warning" + description.dropFirst("error".count) : description
    }
}

/// A JSON file, comments allowed, whose values can be pointed at.
public struct ConfigurationFile: Sendable {
    /// The file as the user would name it, relative to the app.
    public let displayName: String
    public let bytes: [UInt8]
    public let root: JSONValue

    /// Largest configuration file read, in bytes.
    public static let byteLimit = 4 << 20

    /// Parses text that has been read already.
    public init(displayName: String, bytes: [UInt8]) throws(ConfigurationProblem) {
        self.displayName = displayName
        self.bytes = bytes
        guard bytes.count <= Self.byteLimit else {
            throw ConfigurationProblem(
                "AN2002", "the file has \(bytes.count) bytes; the limit is \(Self.byteLimit)",
                place: SourcePlace(file: displayName))
        }
        do {
            root = try JSONParser.parse(bytes, allowsComments: true)
        } catch {
            throw ConfigurationProblem(
                "AN2002", error.reason, remedy: "correct the JSON at this place; comments are allowed",
                place: SourcePlace(file: displayName, text: bytes, offset: error.offset))
        }
        guard root.members != nil else {
            throw ConfigurationProblem(
                "AN2003", "the file must hold a JSON object and holds \(root.kindName)",
                place: SourcePlace(file: displayName, text: bytes, offset: root.offset))
        }
    }

    /// Reads and parses a file.
    public init(path: String, displayName: String) throws(ConfigurationProblem) {
        guard let bytes = readFile(path, limit: Self.byteLimit + 1) else {
            throw ConfigurationProblem(
                "AN2001", "the file cannot be read: \(String(cString: strerror(errno)))",
                place: SourcePlace(file: displayName))
        }
        try self.init(displayName: displayName, bytes: bytes)
    }

    /// Where a value stands.
    public func place(of value: JSONValue) -> SourcePlace { place(at: value.offset) }

    /// The place of a byte offset; values that came from the environment have none.
    public func place(at offset: Int) -> SourcePlace {
        offset < 0 ? SourcePlace(file: displayName) : SourcePlace(file: displayName, text: bytes, offset: offset)
    }
}

/// The bytes of a file, or nil with `errno` set.
public func readFile(_ path: String, limit: Int = .max) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var information = stat()
    guard fstat(descriptor, &information) == 0, information.st_mode & S_IFMT != S_IFDIR else {
        errno = EISDIR
        return nil
    }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while bytes.count < limit {
        let count = read(descriptor, &chunk, chunk.count)
        guard count >= 0 else { return nil }
        if count == 0 { break }
        bytes.append(contentsOf: chunk[..<count])
    }
    return bytes
}

/// Writes a file so that no reader sees half of it and a full disk leaves the old one.
///
/// - Throws: ``SystemError`` naming the call that failed.
public func writeFileAtomically(_ path: String, _ bytes: [UInt8], mode: UInt32 = 0o644) throws(SystemError) {
    let temporary = "\(path).\(getpid()).tmp"
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
    guard descriptor >= 0 else { throw SystemError(errno: errno, call: "open", subject: temporary) }
    var offset = 0
    while offset < bytes.count {
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress?.advanced(by: offset), $0.count - offset) }
        guard count > 0 else {
            let reason = errno
            close(descriptor)
            unlink(temporary)
            throw SystemError(errno: reason, call: "write", subject: path)
        }
        offset += count
    }
    fsync(descriptor)
    close(descriptor)
    guard rename(temporary, path) == 0 else {
        let reason = errno
        unlink(temporary)
        throw SystemError(errno: reason, call: "rename", subject: path)
    }
}

/// Creates a folder and its parents; one that exists is fine.
public func createFolders(_ path: String, mode: UInt32 = 0o755) throws(SystemError) {
    if mkdir(path, mode) == 0 || errno == EEXIST { return }
    guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
        throw SystemError(errno: errno, call: "mkdir", subject: path)
    }
    try createFolders(String(path[..<slash]), mode: mode)
    guard mkdir(path, mode) == 0 || errno == EEXIST else {
        throw SystemError(errno: errno, call: "mkdir", subject: path)
    }
}
