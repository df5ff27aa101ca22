/// Opening a store's file: who may, what version it has, whether it is whole.
internal import CSQLite
internal import Glibc

/// The tables of a store. Version n is what the first n steps make; a step is never changed once released.
public struct StoreSchema: Sendable {
    /// Marks the file as this kind of store (SQLite's `application_id`).
    public let kind: Int32
    /// SQL that leads from each version to the next.
    public let steps: [String]

    public init(kind: Int32, steps: [String]) {
        self.kind = kind
        self.steps = steps
    }
}

/// Keeps other processes out while it lives; the kernel lets go when the process ends, however it ends.
final class StoreLock {
    private var descriptor: Int32

    init(path: String) throws(StoreError) {
        let file = path + "-lock"
        descriptor = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw StoreError.unopenable(path: path, reason: "\(file): \(String(cString: strerror(errno)))")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            // The descriptor is closed by `deinit`, which runs for an init that throws here, and once only: the number
            // may already be another thread's.
            throw StoreError.held(path: path, holder: Self.holder(descriptor))
        }
        let line = Array("\(getpid())\n".utf8)
        ftruncate(descriptor, 0)
        _ = line.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, 0) }
    }

    deinit { release() }

    func release() {
        guard descriptor >= 0 else { return }
        // Closing alone would leave the lock to a child that is being forked, until it executes its program.
        flock(descriptor, LOCK_UN)
        Glibc.close(descriptor)
        descriptor = -1
    }

    /// Who wrote the lock file, as far as it can be seen.
    private static func holder(_ descriptor: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 32)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        let digits = bytes.prefix(max(count, 0)).prefix { (0x30...0x39).contains($0) }
        guard let pid = Int(String(decoding: digits, as: UTF8.self)) else { return "another process" }
        let command = open("/proc/\(pid)/comm", O_RDONLY | O_CLOEXEC)
        guard command >= 0 else { return "process \(pid)" }
        defer { Glibc.close(command) }
        let length = read(command, &bytes, bytes.count)
        let name = String(decoding: bytes.prefix(max(length, 0)).prefix { $0 != 0x0A }, as: UTF8.self)
        return "process \(pid) (\(name))"
    }
}

enum StoreFile {
    /// Files up to this size are checked page by page when they are opened.
    static let checkedByteCount = 32 << 20

    /// Opens, checks and upgrades a store. Blocking.
    static func open(path: String, schema: StoreSchema, pageLimit: Int?) throws(StoreError) -> StoreConnection {
        try checkLength(path)
        var handle: OpaquePointer?
        let status = sqlite3_open_v2(
            path, &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
            nil)
        guard status == SQLITE_OK, let handle else {
            let reason = handle.map { String(cString: sqlite3_errmsg($0)) } ?? "out of memory"
            sqlite3_close(handle)
            throw StoreError.unopenable(path: path, reason: reason)
        }
        let connection = StoreConnection(path: path, database: handle)
        do throws(StoreError) {
            try prepare(connection, schema, pageLimit)
        } catch {
            connection.close()
            throw error
        }
        return connection
    }

    /// A file shorter than its own header says has lost pages.
    private static func checkLength(_ path: String) throws(StoreError) {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { Glibc.close(descriptor) }
        var information = stat()
        guard fstat(descriptor, &information) == 0, information.st_size > 0 else { return }
        var header = [UInt8](repeating: 0, count: 100)
        guard read(descriptor, &header, 100) == 100, header.starts(with: "SQLite format 3\0".utf8) else {
            throw StoreError.damaged(path: path, reason: "it does not begin as a database does")
        }
        let pageSize = header[16] == 0 && header[17] == 1 ? 65536 : Int(header[16]) << 8 | Int(header[17])
        let pages = Int(header[28]) << 24 | Int(header[29]) << 16 | Int(header[30]) << 8 | Int(header[31])
        var log = stat()
        let hasLog = stat(path + "-wal", &log) == 0 && log.st_size > 0
        if !hasLog, pages * pageSize > Int(information.st_size) {
            throw StoreError.damaged(
                path: path, reason: "it has \(information.st_size) bytes and should have \(pages * pageSize)")
        }
    }

    private static func prepare(
        _ connection: StoreConnection, _ schema: StoreSchema, _ pageLimit: Int?
    ) throws(StoreError) {
        // Exclusive locking comes first: the write-ahead log then needs no shared memory.
        try connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _ = try connection.text("PRAGMA journal_mode = WAL")
        try connection.execute("PRAGMA synchronous = FULL; PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY")
        _ = try connection.text("PRAGMA journal_size_limit = 67108864")
        if let pageLimit { _ = try connection.text("PRAGMA max_page_count = \(pageLimit)") }
        let kind = try connection.number("PRAGMA application_id")
        let version = try connection.number("PRAGMA user_version")
        guard kind == Int(schema.kind) || (kind == 0 && version == 0) else {
            throw StoreError.damaged(path: connection.path, reason: "it is the store of something else (\(kind))")
        }
        guard version <= schema.steps.count else {
            throw StoreError.tooNew(path: connection.path, version: version, known: schema.steps.count)
        }
        if try connection.number("PRAGMA page_count") * connection.number("PRAGMA page_size") <= checkedByteCount {
            let finding = try connection.text("PRAGMA quick_check(1)")
            guard finding == "ok" else { throw StoreError.damaged(path: connection.path, reason: finding) }
        }
        for step in version..<schema.steps.count {
            try connection.execute(
                """
                BEGIN IMMEDIATE; \(schema.steps[step]);
                PRAGMA application_id = \(schema.kind); PRAGMA user_version = \(step + 1); COMMIT
                """)
        }
    }
}
