/// Who may use which queue: shared access signatures, put to `$cbs` or given with SASL PLAIN.
internal import EventLoops

/// What one connection has proved. With no keys on the broker everyone may do everything, as in the emulator.
@EventLoop
final class AccessRights {
    private unowned let broker: Broker
    private var hasAll = false
    /// Lower-case path prefix and the time (milliseconds) until which it holds.
    private var grants: [(path: String, until: Int64)] = []

    init(broker: Broker) { self.broker = broker }

    /// SASL. ANONYMOUS and MSSBCBS let anyone in, to put a token; PLAIN must be right.
    func authenticate(mechanism: String, response: [UInt8]) -> Bool {
        guard mechanism == "PLAIN", !broker.keys.isEmpty else { return true }
        let parts = response.split(separator: 0, omittingEmptySubsequences: false)
        guard parts.count == 3, let key = broker.keys[String(decoding: parts[1], as: UTF8.self)],
            constantTimeEqual(Array(key.utf8), Array(parts[2]))
        else { return false }
        hasAll = true
        return true
    }

    func allows(_ entity: String) -> Bool {
        if broker.keys.isEmpty || hasAll { return true }
        let now = broker.now
        let path = entity.lowercased()
        return grants.contains {
            $0.until > now && ($0.path.isEmpty || path == $0.path || path.hasPrefix($0.path + "/"))
        }
    }

    /// Takes a token; the reason when it is refused.
    func put(token: String, audience: String) -> String? {
        if broker.keys.isEmpty { return nil }
        switch SharedAccessSignature.check(token, keys: broker.keys, now: broker.now) {
        case .failure(let refusal): return refusal.reason
        case .success(let signature):
            let path = EntityPath(signature.audience).entity.lowercased()
            grants.removeAll { $0.path == path }
            grants.append((path, signature.expiresAt))
            return nil
        }
    }

    /// When the next right runs out, in milliseconds since 1970; nil when none does.
    var nextExpiry: Int64? { grants.map(\.until).min() }

    /// Forgets rights that have run out, and tells whether there were any.
    func expire() -> Bool {
        let now = broker.now
        let count = grants.count
        grants.removeAll { $0.until <= now }
        return grants.count < count
    }
}
