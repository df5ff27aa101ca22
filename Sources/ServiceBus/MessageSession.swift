/// Sessions of a queue: messages that one receiver at a time takes in order, with a state beside them.
internal import DequeModule
internal import HeapModule
internal import AMQP
internal import EventLoops

/// One session.
@EventLoop
final class MessageSession {
    let id: String
    var ready = ReadyList()
    /// Who holds it; nil when it is free.
    weak var receiver: (any MessageReceiver)?
    var lockedUntil: Int64 = 0
    var state: [UInt8]?
    var statePlace = LogPlace.none
    var stateChangedAt: Int64 = 0
    var messageCount = 0
    /// Waits in the list of free sessions with messages.
    var isOffered = false
    /// States that are on their way to the disk, and may come back from there.
    var pendingStates = 0
    /// Has its place in ``MessageQueue/sessionLocks``.
    var isTimed = false

    init(id: String) { self.id = id }
}

/// When a held session may run out.
struct SessionDue: Comparable {
    let at: Int64
    let session: MessageSession

    static func < (left: Self, right: Self) -> Bool { left.at < right.at }
    static func == (left: Self, right: Self) -> Bool { left.at == right.at }
}

/// Somebody who waits for any session.
struct SessionWaiter {
    let receiver: any MessageReceiver
    let until: Int64
    let granted: @EventLoop (MessageSession) -> Void
    let refused: @EventLoop (AMQPError) -> Void
}

extension MessageQueue {
    func session(_ id: String) -> MessageSession {
        if let known = sessions[id] { return known }
        let session = MessageSession(id: id)
        sessions[id] = session
        return session
    }

    func join(_ sequence: UInt64, _ id: String) {
        let session = session(id)
        session.messageCount += 1
        sessionOfMessage[sequence] = session
    }

    func leaveSession(_ sequence: UInt64) {
        guard !sessionOfMessage.isEmpty, let session = sessionOfMessage.remove(sequence) else { return }
        session.messageCount -= 1
        dropIfEmpty(session)
    }

    private func dropIfEmpty(_ session: MessageSession) {
        guard session.messageCount == 0, session.state == nil, session.receiver == nil, session.pendingStates == 0
        else { return }
        sessions[session.id] = nil
    }

    // MARK: Accepting

    /// Gives a session to a receiver: a named one, or the next free one, now or within `wait` milliseconds.
    func accept(
        _ id: String?, for receiver: any MessageReceiver, wait: Int64,
        granted: @escaping @EventLoop (MessageSession) -> Void, refused: @escaping @EventLoop (AMQPError) -> Void
    ) {
        if let id {
            // One that has run out and was not looked at yet.
            if let held = sessions[id], held.lockedUntil <= broker.now { lose(held) }
            let session = session(id)
            guard session.receiver == nil else {
                return refused(
                    AMQPError(
                        "com.microsoft:session-cannot-be-locked",
                        "The requested session '\(id)' cannot be accepted. It may be locked by another receiver."))
            }
            grant(session, receiver, granted)
            return
        }
        while let session = availableSessions.popFirst() {
            session.isOffered = false
            guard session.receiver == nil, !session.ready.isEmpty, sessions[session.id] === session else { continue }
            return grant(session, receiver, granted)
        }
        sessionWaiters.append(
            SessionWaiter(receiver: receiver, until: broker.now + wait, granted: granted, refused: refused))
        wake(at: broker.now + wait)
    }

    private func grant(
        _ session: MessageSession, _ receiver: any MessageReceiver,
        _ granted: @EventLoop (MessageSession) -> Void
    ) {
        session.receiver = receiver
        session.lockedUntil = broker.now + settings.lockDuration
        if !session.isTimed {
            session.isTimed = true
            sessionLocks.insert(SessionDue(at: session.lockedUntil, session: session))
        }
        wake(at: session.lockedUntil)
        granted(session)
        schedulePump()
    }

    /// A session has messages: to whoever waits, or to the list.
    func offer(_ session: MessageSession) {
        guard session.receiver == nil, !session.isOffered else { return }
        if !sessionWaiters.isEmpty {
            let waiter = sessionWaiters.removeFirst()
            return grant(session, waiter.receiver, waiter.granted)
        }
        session.isOffered = true
        availableSessions.append(session)
    }

    func stopWaiting(_ receiver: any MessageReceiver) { sessionWaiters.removeAll { $0.receiver === receiver } }

    /// The receiver gives the session back, or has lost it: its messages return, which counts when they were held.
    func release(_ session: MessageSession, countsAsFailure: Bool) {
        session.receiver = nil
        session.lockedUntil = 0
        for (sequence, lock) in locks where lock.session === session {
            locks[sequence] = nil
            if countsAsFailure {
                returnMessage(sequence, wasDeferred: lock.wasDeferred)
            } else {
                table.update(sequence) { $0.flags.remove(.locked) }
                if !lock.wasDeferred { makeReady(sequence) }
            }
        }
        if !session.ready.isEmpty { offer(session) }
        dropIfEmpty(session)
    }

    func renew(_ session: MessageSession) -> Int64 {
        session.lockedUntil = broker.now + settings.lockDuration
        return session.lockedUntil
    }

    /// Session locks that have run out, and waits that have lasted too long.
    func expireSessions(_ now: Int64) {
        while let first = sessionLocks.min, first.at <= now {
            sessionLocks.removeMin()
            let session = first.session
            if session.receiver != nil, session.lockedUntil > now {
                // Renewed, or held by another by now.
                sessionLocks.insert(SessionDue(at: session.lockedUntil, session: session))
            } else {
                session.isTimed = false
                lose(session)
            }
        }
        guard sessionWaiters.contains(where: { $0.until <= now }) else { return }
        let late = sessionWaiters.filter { $0.until <= now }
        sessionWaiters.removeAll { $0.until <= now }
        for waiter in late {
            waiter.refused(AMQPError("com.microsoft:timeout", "no session became available in time"))
        }
    }

    /// Takes a session from its receiver, whose time is over.
    private func lose(_ session: MessageSession) {
        guard let receiver = session.receiver else { return }
        release(session, countsAsFailure: true)
        receiver.sessionLockWasLost()
    }

    // MARK: State

    /// Sets or clears a session's state; `effect` runs when it is on disk.
    func setState(_ id: String, _ state: [UInt8]?, then effect: CommitEffect) {
        let session = session(id)
        let old = (state: session.state, place: session.statePlace, changedAt: session.stateChangedAt)
        // The number tells a cleared state from an empty one.
        let place = broker.append(
            SmallRecord.named(
                RecordKind.sessionState, queue: self.id, number: state == nil ? 0 : 1, name: id, state ?? []))
        broker.count(old.place, isLive: false)
        if state != nil { broker.count(place, isLive: true) }
        session.state = state
        session.stateChangedAt = broker.now
        session.statePlace = state == nil ? .none : place
        session.pendingStates += 1
        broker.effects.append(
            .call { [self] failure in
                session.pendingStates -= 1
                guard failure != nil else { return dropIfEmpty(session) }
                if state != nil { broker.count(place, isLive: false) }
                broker.count(old.place, isLive: true)
                (session.state, session.statePlace, session.stateChangedAt) = old
            })
        broker.effects.append(effect)
    }
}
