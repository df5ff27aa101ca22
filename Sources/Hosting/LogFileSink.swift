/// The log file: NDJSON, everything but the records of invocations that went well, unless they are wanted.
internal import ConfigurationFiles
public import Diagnostics
public import EventLoops
internal import Glibc

// SAFETY: receives records on the loop only.
/// Writes records to a file that is replaced when it has grown too large.
public final class LogFileSink: EventSink, @unchecked Sendable {
    /// Bytes after which the file is moved aside (one old file is kept).
    public static let fileByteLimit = 10 << 20

    /// The file's path.
    public let path: String
    private let includesSuccesses: Bool
    private var writer: LineWriter?
    private var descriptor: Int32 = -1
    private var written = 0
    private var timestamp = Timestamp()

    /// - Throws: when the file cannot be opened.
    public init(path: String, includesSuccesses: Bool) throws(SystemError) {
        self.path = path
        self.includesSuccesses = includesSuccesses
        if let slash = path.lastIndex(of: "/"), slash > path.startIndex { try createFolders(String(path[..<slash])) }
        try openFile()
    }

    private func openFile() throws(SystemError) {
        descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw SystemError(errno: errno, call: "open", subject: path) }
        written = Int(lseek(descriptor, 0, SEEK_END))
        writer = LineWriter(descriptor: descriptor)
    }

    public func receive(_ event: HostEvent) {
        var line: [UInt8] = []
        event.appendJSONLine(timestamp: timestamp.rfc3339(), to: &line)
        written += line.count
        writer?.append(line)
        if written > Self.fileByteLimit { rotate() }
    }

    public func wantsSuccess() -> Bool { includesSuccesses }

    private func rotate() {
        close()
        rename(path, path + ".1")
        // When it cannot be opened again, records still reach the terminal.
        try? openFile()
    }

    /// Writes what is left.
    public func close() {
        writer?.close()
        writer = nil
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }
}
