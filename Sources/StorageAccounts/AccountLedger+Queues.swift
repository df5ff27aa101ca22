/// Queues of the ledger: made, listed, removed.
public import DurableStores
public import EventLoops
internal import JSONText

/// A queue as a list shows it.
public struct QueueListing: Sendable {
    public let name: String
    public let metadata: [(name: String, value: String)]
    public let messageCount: Int
}

extension AccountLedger {
    private nonisolated static func encoded(_ metadata: [(name: String, value: String)]) -> String {
        let json = jsonObject { writer in for pair in metadata { writer.member(pair.name, pair.value) } }
        return String(decoding: json, as: UTF8.self)
    }

    private nonisolated static func decoded(_ text: String) -> [(name: String, value: String)] {
        let members = (try? JSONParser.parse(Array(text.utf8)))?.members ?? []
        return members.map { ($0.name, $0.value.string ?? "") }
    }

    /// All queues, in order.
    public func queues() -> Eventual<Result<[QueueListing], StoreError>> {
        let now = wallClockSeconds()
        return store.read { (connection) throws(StoreError) in
            var found: [QueueListing] = []
            try connection.query(
                """
                SELECT name, metadata, (SELECT count(*) FROM message WHERE queue = name AND expires > ?)
                FROM queue ORDER BY name
                """, .real(now)
            ) { (row) throws(StoreError) in
                found.append(
                    QueueListing(
                        name: row.text(0), metadata: Self.decoded(row.text(1)), messageCount: row.integer(2)))
                return true
            }
            return found
        }
    }

    /// One queue; nil when there is none.
    public func queue(_ name: String) -> Eventual<Result<QueueListing?, StoreError>> {
        let now = wallClockSeconds()
        return store.read { (connection) throws(StoreError) in
            var found: QueueListing?
            try connection.query(
                """
                SELECT metadata, (SELECT count(*) FROM message WHERE queue = name AND expires > ?) FROM queue
                WHERE name = ?
                """, .real(now), .text(name)
            ) { (row) throws(StoreError) in
                found = QueueListing(name: name, metadata: Self.decoded(row.text(0)), messageCount: row.integer(1))
                return false
            }
            return found
        }
    }

    /// Makes a queue; gives the metadata of the one that was there already, else nil.
    public func createQueue(
        _ name: String, metadata: [(name: String, value: String)]
    ) -> Eventual<Result<[(name: String, value: String)]?, StoreError>> {
        store.write { (connection) throws(StoreError) in
            var known: [(name: String, value: String)]?
            try connection.query("SELECT metadata FROM queue WHERE name = ?", .text(name)) { (row) throws(StoreError) in
                known = Self.decoded(row.text(0))
                return false
            }
            if known == nil {
                try connection.run("INSERT INTO queue VALUES (?, ?)", .text(name), .text(Self.encoded(metadata)))
            }
            return known
        }
    }

    /// Sets a queue's metadata; false when there is no such queue.
    public func setMetadata(
        of name: String, _ metadata: [(name: String, value: String)]
    ) -> Eventual<Result<Bool, StoreError>> {
        store.write { (connection) throws(StoreError) in
            try connection.run(
                "UPDATE queue SET metadata = ? WHERE name = ?", .text(Self.encoded(metadata)), .text(name)) > 0
        }
    }

    /// Removes a queue with its messages; false when there is none.
    public func deleteQueue(_ name: String) -> Eventual<Result<Bool, StoreError>> {
        store.write { (connection) throws(StoreError) in
            try connection.run("DELETE FROM message WHERE queue = ?", .text(name))
            return try connection.run("DELETE FROM queue WHERE name = ?", .text(name)) > 0
        }
    }

    /// Removes all messages of a queue.
    public func clear(queue: String) -> Eventual<Result<Int, StoreError>> {
        store.write { (connection) throws(StoreError) in
            try connection.run("DELETE FROM message WHERE queue = ?", .text(queue))
        }
    }

    /// Whether a message is in a queue, whoever has it.
    public func hasMessage(queue: String, guid: String) -> Eventual<Result<Bool, StoreError>> {
        store.read { (connection) throws(StoreError) in
            var found = false
            try connection.query("SELECT 1 FROM message WHERE queue = ? AND guid = ?", .text(queue), .text(guid)) {
                (_) throws(StoreError) in
                found = true
                return false
            }
            return found
        }
    }

    /// Drops messages whose time is over.
    public func removeExpired() -> Eventual<Result<Int, StoreError>> {
        let now = wallClockSeconds()
        return store.write { (connection) throws(StoreError) in
            try connection.run("DELETE FROM message WHERE expires <= ?", .real(now))
        }
    }
}
