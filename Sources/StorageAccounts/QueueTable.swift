/// Storage queues in the ledger: messages that are there until somebody who took them says they are done.
internal import Diagnostics
public import DurableStores
public import EventLoops

/// A message to be put.
public struct NewMessage: Sendable {
    public let guid: String
    /// The body as it goes over the wire, often Base64.
    public let body: [UInt8]
    public let inserted: Double
    public let expires: Double
    public let visible: Double
    public let popReceipt: String

    /// Seconds a message lives when nothing else is said: 7 days.
    public static let defaultTimeToLive = 604_800.0
    /// Bytes of one body on the wire.
    public static let byteLimit = 65_536

    /// - Parameter timeToLive: seconds; -1 is for ever.
    public init(body: [UInt8], timeToLive: Double = Self.defaultTimeToLive, delay: Double = 0) {
        self.body = body
        guid = newGUID()
        popReceipt = newGUID()
        inserted = wallClockSeconds()
        expires = timeToLive < 0 ? 253_402_300_799 : inserted + timeToLive
        // Without a delay it can be seen whatever the clock says later: one that is set back hides no message.
        visible = delay > 0 ? inserted + delay : 0
    }
}

/// A place that keeps queues: the app's folder, or another service.
@EventLoop
public protocol QueueStore: AnyObject {
    /// Puts messages, making the queue when needed.
    func put(_ messages: [NewMessage], queue: String) async throws(StorageError)
    /// Takes up to `count` messages; they are nobody else's for `visibility` seconds.
    func take(queue: String, count: Int, visibility: Double) async throws(StorageError) -> [QueueMessage]
    /// Removes a taken message; false when it is not this taker's any more.
    func delete(_ message: QueueMessage, queue: String) async throws(StorageError) -> Bool
    /// Gives a taken message back, to be seen again after `visibility` seconds, or keeps it for longer.
    func update(_ message: QueueMessage, queue: String, visibility: Double) async throws(StorageError) -> QueueMessage?
    /// Moves a taken message to another queue.
    func move(_ message: QueueMessage, from queue: String, to other: String) async throws(StorageError)
}

/// A message in a queue.
public struct QueueMessage: Sendable {
    public let guid: String
    public let body: [UInt8]
    public let inserted: Double
    public let expires: Double
    public let visible: Double
    /// How often it was taken, this time included.
    public let dequeueCount: Int
    public let popReceipt: String
}

extension QueueMessage {
    /// The same message under a new receipt.
    func renewed(popReceipt: String, visible: Double) -> QueueMessage {
        QueueMessage(
            guid: guid, body: body, inserted: inserted, expires: expires, visible: visible, dequeueCount: dequeueCount,
            popReceipt: popReceipt)
    }
}

/// A new random name.
public func newGUID() -> String {
    var random = RandomBytes()
    return InvocationID(from: &random).description
}

enum QueueTable {
    static func insert(
        _ messages: [NewMessage], _ queue: String, _ connection: StoreConnection
    ) throws(StoreError) {
        try connection.run("INSERT OR IGNORE INTO queue VALUES (?, '{}')", .text(queue))
        for message in messages {
            try connection.run(
                """
                INSERT INTO message (queue, guid, body, inserted, expires, visible, dequeued, popReceipt)
                VALUES (?, ?, ?, ?, ?, ?, 0, ?)
                """, .text(queue), .text(message.guid), .blob(message.body), .real(message.inserted),
                .real(message.expires), .real(message.visible), .text(message.popReceipt))
        }
    }

    static func message(_ row: StoreRow) -> QueueMessage {
        QueueMessage(
            guid: row.text(0), body: row.blob(1), inserted: row.real(2), expires: row.real(3), visible: row.real(4),
            dequeueCount: row.integer(5), popReceipt: row.text(6))
    }
}

extension AccountLedger {
    /// Puts messages, making the queue when needed; they are there together or not at all.
    public func put(_ messages: [NewMessage], queue: String) -> Eventual<Result<Void, StoreError>> {
        let result = store.write { (connection) throws(StoreError) in
            try QueueTable.insert(messages, queue, connection)
        }
        return result.map { [self] result in
            if case .success = result { queueGrew(queue) }
            return result
        }
    }

    /// Takes up to `count` messages for `visibility` seconds, oldest first.
    ///
    /// - Parameter byHost: they are this host's own: when it is killed, the next one gives them back at once.
    public func take(
        queue: String, count: Int, visibility: Double, byHost: Bool = false
    ) -> Eventual<Result<[QueueMessage], StoreError>> {
        let now = wallClockSeconds()
        let receipts = (0..<count).map { _ in (byHost ? "host-" : "") + newGUID() }
        return store.write { (connection) throws(StoreError) in
            var taken: [(id: Int, message: QueueMessage)] = []
            try connection.query(
                """
                SELECT guid, body, inserted, expires, visible, dequeued, popReceipt, id FROM message
                WHERE queue = ? AND visible <= ? AND expires > ? ORDER BY visible, id LIMIT ?
                """, .text(queue), .real(now), .real(now), .integer(count)
            ) { (row) throws(StoreError) in
                taken.append((row.integer(7), QueueTable.message(row)))
                return true
            }
            var messages: [QueueMessage] = []
            for (index, (id, message)) in taken.enumerated() {
                try connection.run(
                    "UPDATE message SET visible = ?, dequeued = dequeued + 1, popReceipt = ? WHERE id = ?",
                    .real(now + visibility), .text(receipts[index]), .integer(id))
                messages.append(
                    QueueMessage(
                        guid: message.guid, body: message.body, inserted: message.inserted, expires: message.expires,
                        visible: now + visibility, dequeueCount: message.dequeueCount + 1,
                        popReceipt: receipts[index]))
            }
            return messages
        }
    }

    /// Gives back what a host before this one had taken.
    public func releaseTaken(queue: String) -> Eventual<Result<Int, StoreError>> {
        let now = wallClockSeconds()
        return store.write { (connection) throws(StoreError) in
            try connection.run(
                "UPDATE message SET visible = 0 WHERE queue = ?2 AND visible > ?1 AND popReceipt LIKE 'host-%'",
                .real(now), .text(queue))
        }
    }

    /// When the next message that is hidden now can be seen; nil when there is none.
    public func nextVisible(queue: String) -> Eventual<Result<Double?, StoreError>> {
        let now = wallClockSeconds()
        return store.read { (connection) throws(StoreError) in
            var moment: Double?
            try connection.query(
                "SELECT min(visible) FROM message WHERE queue = ? AND expires > ?", .text(queue), .real(now)
            ) { (row) throws(StoreError) in
                moment = row.isNull(0) ? nil : row.real(0)
                return false
            }
            return moment
        }
    }

    /// Looks at messages without taking them.
    public func peek(queue: String, count: Int) -> Eventual<Result<[QueueMessage], StoreError>> {
        let now = wallClockSeconds()
        return store.read { (connection) throws(StoreError) in
            var messages: [QueueMessage] = []
            try connection.query(
                """
                SELECT guid, body, inserted, expires, visible, dequeued, popReceipt FROM message
                WHERE queue = ? AND visible <= ? AND expires > ? ORDER BY visible, id LIMIT ?
                """, .text(queue), .real(now), .real(now), .integer(count)
            ) { (row) throws(StoreError) in
                messages.append(QueueTable.message(row))
                return true
            }
            return messages
        }
    }

    /// Removes a message that was taken; false when somebody else has taken it since, or it is gone.
    public func delete(queue: String, guid: String, popReceipt: String) -> Eventual<Result<Bool, StoreError>> {
        store.write { (connection) throws(StoreError) in
            try connection.run(
                "DELETE FROM message WHERE queue = ? AND guid = ? AND popReceipt = ?", .text(queue), .text(guid),
                .text(popReceipt)) > 0
        }
    }

    /// Changes when a taken message is seen again, and its body when one is given. Gives the new receipt and moment.
    public func update(
        queue: String, guid: String, popReceipt: String, visibility: Double, body: [UInt8]?
    ) -> Eventual<Result<(popReceipt: String, visible: Double)?, StoreError>> {
        let renewed = (visibility > 0 && popReceipt.hasPrefix("host-") ? "host-" : "") + newGUID()
        let visible = visibility > 0 ? wallClockSeconds() + visibility : 0
        let result = store.write { (connection) throws(StoreError) -> (popReceipt: String, visible: Double)? in
            let changed = try connection.run(
                """
                UPDATE message SET visible = ?, popReceipt = ?, body = coalesce(?, body)
                WHERE queue = ? AND guid = ? AND popReceipt = ?
                """, .real(visible), .text(renewed), body.map { .blob($0) } ?? .null, .text(queue), .text(guid),
                .text(popReceipt))
            return changed > 0 ? (renewed, visible) : nil
        }
        return result.map { [self] result in
            queueGrew(queue)
            return result
        }
    }

    /// Moves a taken message to another queue, in one transaction.
    public func move(
        queue: String, guid: String, popReceipt: String, to other: String, _ message: NewMessage
    ) -> Eventual<Result<Void, StoreError>> {
        let result = store.write { (connection) throws(StoreError) in
            let gone = try connection.run(
                "DELETE FROM message WHERE queue = ? AND guid = ? AND popReceipt = ?", .text(queue), .text(guid),
                .text(popReceipt))
            if gone > 0 { try QueueTable.insert([message], other, connection) }
        }
        return result.map { [self] result in
            queueGrew(other)
            return result
        }
    }
}
