/// The operations of a queue's `$management` node.
internal import AMQP
internal import EventLoops

/// Answers one request about one queue.
@EventLoop
struct ManagementNode {
    let connection: BrokerConnection
    let queue: MessageQueue

    var broker: Broker { connection.broker }

    /// Answers when what the request changes is on disk.
    func answer(_ request: AMQPMessage, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        let properties = AMQPValue.map(request.applicationProperties)
        guard let operation = properties["operation"]?.text else {
            return done(.arguments("the request names no operation"))
        }
        var body = AMQPValue.map([])
        if case .value(let value) = request.body, value.pairs != nil { body = value }
        let link = properties["associated-link-name"]?.text
        switch operation {
        case "com.microsoft:peek-message": done(peek(body))
        case "com.microsoft:renew-lock": done(renewLocks(body))
        case "com.microsoft:schedule-message": schedule(body, done)
        case "com.microsoft:cancel-scheduled-message": cancel(body, done)
        case "com.microsoft:receive-by-sequence-number": receiveDeferred(body, done)
        case "com.microsoft:update-disposition": updateDisposition(body, done)
        case "com.microsoft:renew-session-lock": done(renewSession(body, link))
        case "com.microsoft:get-session-state": done(sessionState(body))
        case "com.microsoft:set-session-state": setSessionState(body, done)
        case "com.microsoft:get-message-sessions": done(listSessions(body))
        case "com.microsoft:batch-delete-messages": deleteMessages(body, done)
        case "com.microsoft:add-rule": addRule(body, done)
        case "com.microsoft:remove-rule": removeRule(body, done)
        case "com.microsoft:enumerate-rules": done(rules(body))
        default:
            done(
                ManagementAnswer(
                    status: 501, text: "operation '\(operation)' is not supported",
                    condition: "amqp:not-implemented"))
        }
    }

    /// Has the answer wait for the next commit.
    private func afterCommit(
        _ answer: ManagementAnswer, _ done: @escaping @EventLoop (ManagementAnswer) -> Void
    ) {
        broker.effects.append(.call { failure in done(failure == nil ? answer : .failure(500, .storeFull)) })
        broker.pump(queue)
    }

    private func sequences(_ body: AMQPValue) -> [UInt64]? {
        guard let values = body["sequence-numbers"]?.elements, values.count <= ServiceBusLimits.peekCount else {
            return nil
        }
        return values.compactMap { $0.integer.map { UInt64(bitPattern: $0) } }
    }

    private func encoded(_ record: MessageRecord, _ delivery: MessageRecord.Delivery) -> [UInt8] {
        var writer = AMQPWriter()
        record.write(delivery, to: &writer)
        return writer.bytes
    }

    // MARK: Messages

    private func peek(_ body: AMQPValue) -> ManagementAnswer {
        let start = UInt64(bitPattern: max(0, body["from-sequence-number"]?.integer ?? 0))
        let count = min(Int(body["message-count"]?.integer ?? 1), ServiceBusLimits.peekCount)
        guard count > 0 else { return .arguments("message-count must be positive") }
        let found = queue.peek(from: start, count: count, session: body["session-id"]?.text)
        guard !found.isEmpty else { return .empty(.messageNotFound) }
        let messages = found.map { record -> AMQPValue in
            let delivery = MessageRecord.Delivery(
                deliveryCount: UInt32(record.deliveryCount), isFirst: record.deliveryCount == 0, state: record.state)
            return .map([AMQPPair(string: "message", .binary(encoded(record, delivery)))])
        }
        return ManagementAnswer(body: [AMQPPair(string: "messages", .list(messages))])
    }

    private func renewLocks(_ body: AMQPValue) -> ManagementAnswer {
        var ends: [AMQPValue] = []
        for token in body["lock-tokens"]?.elements?.compactMap(\.uuid) ?? [] {
            guard let end = queue.renewLock(token) else { return .failure(410, .lockLost) }
            ends.append(.timestamp(end))
        }
        return ManagementAnswer(body: [AMQPPair(string: "expirations", .array(ends))])
    }

    private func schedule(_ body: AMQPValue, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        var numbers: [AMQPValue] = []
        var admitted: [(record: MessageRecord, target: MessageQueue)] = []
        for item in body["messages"]?.elements ?? [] {
            guard let bytes = item["message"]?.bytes else { return done(.arguments("a message is no binary")) }
            do throws(AMQPError) {
                if let refusal = queue.refusesSends { throw refusal }
                admitted.append(
                    try bytes.withUnsafeBytes { memory -> Result<(MessageRecord, MessageQueue), AMQPError> in
                        do throws(AMQPError) {
                            let (record, target) = try broker.admit(memory, to: queue)
                            return .success((record, target))
                        } catch {
                            return .failure(error)
                        }
                    }.get())
            } catch {
                return done(.failure(400, error))
            }
        }
        for (record, target) in admitted {
            var record = record
            numbers.append(.long(Int64(bitPattern: broker.put(&record, target))))
        }
        afterCommit(ManagementAnswer(body: [AMQPPair(string: "sequence-numbers", .array(numbers))]), done)
    }

    private func cancel(_ body: AMQPValue, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        guard let sequences = sequences(body) else { return done(.arguments("sequence-numbers are expected")) }
        if let error = queue.cancelScheduled(sequences) { return done(.failure(404, error)) }
        afterCommit(ManagementAnswer(), done)
    }

    private func receiveDeferred(_ body: AMQPValue, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        guard let sequences = sequences(body) else { return done(.arguments("sequence-numbers are expected")) }
        let removes = body["receiver-settle-mode"]?.integer == 0
        switch queue.receiveDeferred(sequences, removes: removes, session: body["session-id"]?.text) {
        case .failure(let error): done(.failure(404, error))
        case .success(let found):
            let messages = found.map { record, delivery -> AMQPValue in
                var pairs = [AMQPPair(string: "message", .binary(encoded(record, delivery)))]
                if let token = delivery.lockToken { pairs.append(AMQPPair(string: "lock-token", .uuid(token))) }
                return .map(pairs)
            }
            afterCommit(ManagementAnswer(body: [AMQPPair(string: "messages", .list(messages))]), done)
        }
    }

    private func updateDisposition(_ body: AMQPValue, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        let changes = (body["properties-to-modify"]?.pairs ?? []).compactMap { pair in
            pair.key.text.map { AMQPPair(string: $0, pair.value) }
        }
        let disposition: Disposition
        switch body["disposition-status"]?.text {
        case "completed": disposition = .complete
        case "abandoned": disposition = .abandon(changes)
        case "defered", "deferred": disposition = .defer(changes)
        case "suspended":
            disposition = .deadLetter(
                reason: body["deadletter-reason"]?.text, description: body["deadletter-description"]?.text, changes)
        default: return done(.arguments("disposition-status is unknown"))
        }
        for token in body["lock-tokens"]?.elements?.compactMap(\.uuid) ?? [] {
            if let error = queue.settle(token, disposition, then: nil) {
                return done(.failure(410, error))
            }
        }
        afterCommit(ManagementAnswer(), done)
    }

    /// Removes up to a number of the oldest messages enqueued before a time.
    private func deleteMessages(_ body: AMQPValue, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        let limit = Int(body["message-count"]?.integer ?? 0)
        guard (1...ServiceBusLimits.deletionCount).contains(limit) else {
            return done(.arguments("message-count is \(limit); it must be from 1 to \(ServiceBusLimits.deletionCount)"))
        }
        let before = body["enqueued-time-utc"]?.integer ?? .max
        let session = body["session-id"]?.text
        var gone: [UInt64] = []
        queue.table.forEach { sequence, entry in
            guard gone.count < limit else { return false }
            guard entry.isReady, let record = queue.record(sequence), record.enqueuedAt < before,
                session == nil || session == record.sessionID
            else { return true }
            gone.append(sequence)
            return true
        }
        guard !gone.isEmpty else { return done(.empty(.messageNotFound)) }
        for sequence in gone { queue.leave(sequence) }
        afterCommit(ManagementAnswer(body: [AMQPPair(string: "message-count", .int(Int32(gone.count)))]), done)
    }

    // MARK: Sessions

    private func heldSession(_ body: AMQPValue) -> MessageSession? {
        guard let id = body["session-id"]?.text, let session = queue.sessions[id], session.receiver != nil,
            session.lockedUntil > broker.now
        else { return nil }
        return session
    }

    private func renewSession(_ body: AMQPValue, _ link: String?) -> ManagementAnswer {
        guard let session = heldSession(body) else { return .failure(410, .sessionLockLost) }
        return ManagementAnswer(body: [AMQPPair(string: "expiration", .timestamp(queue.renew(session)))])
    }

    private func sessionState(_ body: AMQPValue) -> ManagementAnswer {
        guard let session = heldSession(body) else { return .failure(410, .sessionLockLost) }
        return ManagementAnswer(
            body: [AMQPPair(string: "session-state", session.state.map { .binary($0) } ?? .null)])
    }

    private func setSessionState(_ body: AMQPValue, _ done: @escaping @EventLoop (ManagementAnswer) -> Void) {
        guard let session = heldSession(body) else { return done(.failure(410, .sessionLockLost)) }
        let state = body["session-state"]?.bytes
        guard state?.count ?? 0 <= ServiceBusLimits.sessionStateByteCount else {
            return done(.failure(400, .tooLarge(state?.count ?? 0)))
        }
        queue.setState(
            session.id, state,
            then: .call { failure in done(failure == nil ? ManagementAnswer() : .failure(500, .storeFull)) })
        broker.pump(queue)
    }

    private func listSessions(_ body: AMQPValue) -> ManagementAnswer {
        let skip = Int(max(0, body["skip"]?.integer ?? 0))
        let top = Int(min(max(1, body["top"]?.integer ?? 100), 1000))
        // The default "last updated" is the far future and asks for sessions with messages.
        let since = body["last-updated-time"]?.integer ?? 253_402_300_800_000
        let wantsActive = since >= 253_402_300_799_000
        let ids = queue.sessions.values.filter { session in
            wantsActive ? session.messageCount > 0 : session.state != nil && session.stateChangedAt > since
        }.map(\.id).sorted()
        let page = ids.dropFirst(skip).prefix(top)
        guard !page.isEmpty else {
            return .empty(AMQPError("com.microsoft:session-not-found", "there are no further sessions"))
        }
        return ManagementAnswer(body: [
            AMQPPair(string: "skip", .int(Int32(skip + page.count))),
            AMQPPair(string: "sessions-ids", .array(page.map { .string($0) })),
        ])
    }
}
