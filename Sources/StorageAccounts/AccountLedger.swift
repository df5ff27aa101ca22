/// What a storage folder remembers beside its files: receipts of blobs, queues and their messages.
public import DurableStores
public import EventLoops

/// One version of a blob as one function sees it.
public struct ReceiptKey: Hashable, Sendable {
    public let function: String
    public let container: String
    public let name: String
    public let etag: String

    public init(function: String, container: String, name: String, etag: String) {
        self.function = function
        self.container = container
        self.name = name
        self.etag = etag
    }
}

/// How far a function has come with a version of a blob.
public enum ReceiptState: Int, Sendable {
    /// It has failed and is tried again.
    case attempted = 0
    case completed = 1
    /// Given up; a message is in the poison queue.
    case poisoned = 2
    /// It was there before the function first started, and was to be left alone.
    case skipped = 3

    /// The word in lists.
    public var word: String {
        switch self {
        case .attempted: "failed"
        case .completed: "completed"
        case .poisoned: "poison"
        case .skipped: "skipped"
        }
    }
}

/// A receipt as it is kept.
public struct Receipt: Sendable {
    public let key: ReceiptKey
    public let state: ReceiptState
    public let attempts: Int
    /// Seconds since 1970.
    public let updated: Double
}

/// The file `storage/.andiron/account.db`.
@EventLoop
public final class AccountLedger {
    public let store: DurableStore

    static let schema = StoreSchema(
        kind: 0x414E_5301,
        steps: [
            """
            CREATE TABLE receipt (function TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL,
              etag TEXT NOT NULL, state INTEGER NOT NULL, attempts INTEGER NOT NULL, updated REAL NOT NULL,
              PRIMARY KEY (function, container, name, etag)) WITHOUT ROWID;
            CREATE TABLE started (function TEXT NOT NULL, container TEXT NOT NULL, PRIMARY KEY (function, container))
              WITHOUT ROWID;
            CREATE TABLE queue (name TEXT PRIMARY KEY, metadata TEXT NOT NULL) WITHOUT ROWID;
            CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, guid TEXT NOT NULL,
              body BLOB NOT NULL, inserted REAL NOT NULL, expires REAL NOT NULL, visible REAL NOT NULL,
              dequeued INTEGER NOT NULL, popReceipt TEXT NOT NULL);
            CREATE INDEX messageOrder ON message (queue, visible, id)
            """
        ])

    private var queueObservers: [(queue: String, token: Int, action: @EventLoop () -> Void)] = []
    private var lastToken = 0

    public init(path: String, pageLimit: Int? = nil) throws(StoreError) {
        store = try DurableStore(path: path, schema: Self.schema, pageLimit: pageLimit)
    }

    /// Calls `action` whenever a message comes into a queue, or becomes visible sooner; gives a token to end it with.
    public func observe(queue: String, _ action: @escaping @EventLoop () -> Void) -> Int {
        lastToken += 1
        queueObservers.append((queue, lastToken, action))
        return lastToken
    }

    public func endObserving(_ token: Int) { queueObservers.removeAll { $0.token == token } }

    func queueGrew(_ queue: String) {
        for observer in queueObservers where observer.queue == queue { observer.action() }
    }

    // MARK: Receipts

    /// What is known of one version; nil when nothing is.
    public func receipt(_ key: ReceiptKey) -> Eventual<Result<(state: ReceiptState, attempts: Int)?, StoreError>> {
        store.read { (connection) throws(StoreError) in try Self.find(key, connection) }
    }

    private nonisolated static func find(
        _ key: ReceiptKey, _ connection: StoreConnection
    ) throws(StoreError) -> (state: ReceiptState, attempts: Int)? {
        var found: (state: ReceiptState, attempts: Int)?
        try connection.query(
            "SELECT state, attempts FROM receipt WHERE function = ? AND container = ? AND name = ? AND etag = ?",
            .text(key.function), .text(key.container), .text(key.name), .text(key.etag)
        ) { (row) throws(StoreError) in
            found = (ReceiptState(rawValue: row.integer(0)) ?? .attempted, row.integer(1))
            return false
        }
        return found
    }

    /// Of the blobs found, those that the function has still to process.
    public func unprocessed(
        function: String, container: String, _ blobs: [FoundBlob]
    ) -> Eventual<Result<[FoundBlob], StoreError>> {
        store.read { (connection) throws(StoreError) in
            var left: [FoundBlob] = []
            for blob in blobs {
                let key = ReceiptKey(function: function, container: container, name: blob.name, etag: blob.etag)
                let state = try Self.find(key, connection)?.state ?? .attempted
                if state == .attempted { left.append(blob) }
            }
            return left
        }
    }

    /// Keeps what became of one version; with a message when it goes to the poison queue, in the same transaction.
    public func record(
        _ key: ReceiptKey, _ state: ReceiptState, attempts: Int, poison: (queue: String, message: NewMessage)? = nil
    ) -> Eventual<Result<Void, StoreError>> {
        let now = wallClockSeconds()
        return store.write { (connection) throws(StoreError) in
            try connection.run(
                "INSERT OR REPLACE INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?)", .text(key.function),
                .text(key.container), .text(key.name), .text(key.etag), .integer(state.rawValue), .integer(attempts),
                .real(now))
            if let poison { try QueueTable.insert([poison.message], poison.queue, connection) }
        }
    }

    /// Marks blobs as left alone.
    public func skip(function: String, container: String, _ blobs: [FoundBlob]) -> Eventual<Result<Void, StoreError>> {
        let now = wallClockSeconds()
        return store.write { (connection) throws(StoreError) in
            for blob in blobs {
                try connection.run(
                    "INSERT OR IGNORE INTO receipt VALUES (?, ?, ?, ?, 3, 0, ?)", .text(function), .text(container),
                    .text(blob.name), .text(blob.etag), .real(now))
            }
        }
    }

    /// Whether a function has scanned a container to its end before.
    public func hasStarted(function: String, container: String) -> Eventual<Result<Bool, StoreError>> {
        store.read { (connection) throws(StoreError) in
            var found = false
            try connection.query(
                "SELECT 1 FROM started WHERE function = ? AND container = ?", .text(function), .text(container)
            ) { (_) throws(StoreError) in
                found = true
                return false
            }
            return found
        }
    }

    /// Notes that it has.
    public func setStarted(function: String, container: String) -> Eventual<Result<Void, StoreError>> {
        store.write { (connection) throws(StoreError) in
            try connection.run("INSERT OR IGNORE INTO started VALUES (?, ?)", .text(function), .text(container))
        }
    }

    /// Receipts in the order of container and name, after a position.
    ///
    /// - Parameters:
    ///   - function: only this one's; nil for all.
    ///   - prefix: what `container/name` begins with.
    public func receipts(
        function: String?, prefix: String, state: ReceiptState?, limit: Int, offset: Int = 0
    ) -> Eventual<Result<[Receipt], StoreError>> {
        store.read { (connection) throws(StoreError) in
            var found: [Receipt] = []
            try connection.query(
                """
                SELECT function, container, name, etag, state, attempts, updated FROM receipt
                WHERE (?1 = '' OR function = ?1) AND substr(container || '/' || name, 1, length(?2)) = ?2
                  AND (?3 < 0 OR state = ?3) ORDER BY function, container, name, etag LIMIT ?4 OFFSET ?5
                """,
                .text(function ?? ""), .text(prefix), .integer(state?.rawValue ?? -1), .integer(limit), .integer(offset)
            ) { (row) throws(StoreError) in
                let key = ReceiptKey(
                    function: row.text(0), container: row.text(1), name: row.text(2), etag: row.text(3))
                found.append(
                    Receipt(
                        key: key, state: ReceiptState(rawValue: row.integer(4)) ?? .attempted,
                        attempts: row.integer(5), updated: row.real(6)))
                return true
            }
            return found
        }
    }

    /// Forgets receipts, so that their blobs are processed again; returns how many.
    public func forget(
        function: String?, container: String, name: String?
    ) -> Eventual<Result<Int, StoreError>> {
        store.write { (connection) throws(StoreError) in
            try connection.run(
                """
                DELETE FROM receipt WHERE (?1 = '' OR function = ?1) AND container = ?2 AND (?3 = '' OR name = ?3)
                """, .text(function ?? ""), .text(container), .text(name ?? ""))
        }
    }

    /// Forgets one receipt.
    public func forget(_ key: ReceiptKey) -> Eventual<Result<Int, StoreError>> {
        store.write { (connection) throws(StoreError) in
            try connection.run(
                "DELETE FROM receipt WHERE function = ? AND container = ? AND name = ? AND etag = ?",
                .text(key.function), .text(key.container), .text(key.name), .text(key.etag))
        }
    }
}
