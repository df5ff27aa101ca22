/// One SQLite connection with its prepared statements; used by the store's own thread only.
internal import CSQLite
internal import Glibc

/// A value of a column or a parameter.
public enum StoreValue: Sendable, Equatable {
    case null
    case integer(Int)
    case real(Double)
    case text(String)
    case blob([UInt8])
}

/// What a write or a read works with. Valid inside the closure it is handed to.
public final class StoreConnection {
    let path: String
    private var database: OpaquePointer?
    private var statements: [UnsafeRawPointer: OpaquePointer] = [:]
    private let begin: StaticString = "BEGIN IMMEDIATE"
    private let commitText: StaticString = "COMMIT"
    private let rollbackText: StaticString = "ROLLBACK"
    private let savepoint: StaticString = "SAVEPOINT one"
    private let release: StaticString = "RELEASE one"
    private let rollbackToSavepoint: StaticString = "ROLLBACK TO one"

    init(path: String, database: OpaquePointer) {
        self.path = path
        self.database = database
    }

    func close() {
        for statement in statements.values { sqlite3_finalize(statement) }
        statements = [:]
        sqlite3_close(database)
        database = nil
    }

    // MARK: Statements

    /// Runs a statement that gives no rows; `sql` is prepared once. Returns the number of rows changed.
    @discardableResult
    public func run(_ sql: StaticString, _ values: StoreValue...) throws(StoreError) -> Int {
        let statement = try prepared(sql, values)
        defer { sqlite3_reset(statement) }
        let status = sqlite3_step(statement)
        guard status == SQLITE_DONE || status == SQLITE_ROW else { throw error(status) }
        return Int(sqlite3_changes(database))
    }

    /// Runs a query and hands over each row; `row` returns false to stop early.
    public func query(
        _ sql: StaticString, _ values: StoreValue..., row: (StoreRow) throws(StoreError) -> Bool
    ) throws(StoreError) {
        let statement = try prepared(sql, values)
        defer { sqlite3_reset(statement) }
        while true {
            let status = sqlite3_step(statement)
            if status == SQLITE_DONE { return }
            guard status == SQLITE_ROW else { throw error(status) }
            if try !row(StoreRow(statement: statement)) { return }
        }
    }

    /// The row id of the last insert.
    public var lastRowID: Int { Int(sqlite3_last_insert_rowid(database)) }

    private func prepared(_ sql: StaticString, _ values: [StoreValue]) throws(StoreError) -> OpaquePointer {
        let key = UnsafeRawPointer(sql.utf8Start)
        let statement: OpaquePointer
        if let known = statements[key] {
            statement = known
        } else {
            var made: OpaquePointer?
            let status = sqlite3_prepare_v3(
                database, UnsafeRawPointer(sql.utf8Start).assumingMemoryBound(to: CChar.self),
                Int32(sql.utf8CodeUnitCount), UInt32(SQLITE_PREPARE_PERSISTENT), &made, nil)
            guard status == SQLITE_OK, let made else { throw error(status) }
            statements[key] = made
            statement = made
        }
        for (index, value) in values.enumerated() { bind(statement, Int32(index + 1), value) }
        return statement
    }

    private func bind(_ statement: OpaquePointer, _ index: Int32, _ value: StoreValue) {
        switch value {
        case .null: sqlite3_bind_null(statement, index)
        case .integer(let number): sqlite3_bind_int64(statement, index, Int64(number))
        case .real(let number): sqlite3_bind_double(statement, index, number)
        case .text(var text):
            text.withUTF8 { bytes in
                _ = bytes.withMemoryRebound(to: CChar.self) {
                    andiron_bind_text(statement, index, $0.baseAddress, Int32($0.count))
                }
            }
        case .blob(let bytes):
            _ = bytes.withUnsafeBytes { andiron_bind_blob(statement, index, $0.baseAddress, Int32($0.count)) }
        }
    }

    /// Runs text that is not kept: schema and pragmas.
    func execute(_ sql: String) throws(StoreError) {
        let status = sqlite3_exec(database, sql, nil, nil, nil)
        guard status == SQLITE_OK else { throw error(status) }
    }

    /// The single number a pragma or query answers.
    func number(_ sql: String) throws(StoreError) -> Int {
        try Int(text(sql)) ?? 0
    }

    func text(_ sql: String) throws(StoreError) -> String {
        var statement: OpaquePointer?
        let status = sqlite3_prepare_v2(database, sql, -1, &statement, nil)
        guard status == SQLITE_OK, let statement else { throw error(status) }
        defer { sqlite3_finalize(statement) }
        let step = sqlite3_step(statement)
        guard step == SQLITE_ROW else {
            if step == SQLITE_DONE { return "" }
            throw error(step)
        }
        return StoreRow(statement: statement).text(0)
    }

    private func error(_ status: Int32) -> StoreError {
        let reason = String(cString: sqlite3_errmsg(database))
        switch status & 0xFF {
        case SQLITE_FULL: return .full(path: path)
        case SQLITE_CORRUPT, SQLITE_NOTADB: return .damaged(path: path, reason: reason)
        case SQLITE_BUSY, SQLITE_LOCKED:
            return .held(path: path, holder: "a program that has the file open, such as sqlite3")
        case SQLITE_CANTOPEN, SQLITE_PERM, SQLITE_READONLY, SQLITE_AUTH:
            return .unopenable(path: path, reason: reason)
        case SQLITE_IOERR:
            let number = sqlite3_system_errno(database)
            if number == ENOSPC || number == EDQUOT || number == EFBIG { return .full(path: path) }
            return .failed(path: path, reason: "\(reason): \(String(cString: strerror(number)))")
        default: return .failed(path: path, reason: reason)
        }
    }

    // MARK: Transactions

    func beginTransaction() throws(StoreError) { try run(begin) }

    func commit() throws(StoreError) { try run(commitText) }

    /// Takes everything since the beginning back; SQLite may have done so itself.
    func rollBack() {
        if sqlite3_get_autocommit(database) == 0 { _ = try? run(rollbackText) }
    }

    /// Runs one write that is taken back alone when it fails.
    func alone(_ body: () throws(StoreError) -> Void) throws(StoreError) {
        try run(savepoint)
        do throws(StoreError) {
            try body()
            try run(release)
        } catch {
            if sqlite3_get_autocommit(database) == 0 {
                _ = try? run(rollbackToSavepoint)
                _ = try? run(release)
            }
            throw error
        }
    }

    var isInTransaction: Bool { sqlite3_get_autocommit(database) == 0 }
}

/// The current row of a query.
public struct StoreRow {
    let statement: OpaquePointer

    /// A text column; empty for null.
    public func text(_ column: Int) -> String {
        guard let bytes = sqlite3_column_text(statement, Int32(column)) else { return "" }
        let count = Int(sqlite3_column_bytes(statement, Int32(column)))
        return String(decoding: UnsafeBufferPointer(start: bytes, count: count), as: UTF8.self)
    }

    /// A number column; 0 for null.
    public func integer(_ column: Int) -> Int { Int(sqlite3_column_int64(statement, Int32(column))) }

    /// A floating-point column; 0 for null.
    public func real(_ column: Int) -> Double { sqlite3_column_double(statement, Int32(column)) }

    /// A bytes column; empty for null.
    public func blob(_ column: Int) -> [UInt8] {
        guard let bytes = sqlite3_column_blob(statement, Int32(column)) else { return [] }
        let count = Int(sqlite3_column_bytes(statement, Int32(column)))
        return Array(UnsafeRawBufferPointer(start: bytes, count: count))
    }

    /// Whether a column is null.
    public func isNull(_ column: Int) -> Bool { sqlite3_column_type(statement, Int32(column)) == SQLITE_NULL }
}
