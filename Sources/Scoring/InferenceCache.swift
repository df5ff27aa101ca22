/// The inference cache: results in memory and, when there is one, in Redis; equal requests computed once.
///
/// A cache that fails is a cache that missed: nothing here throws, and Redis adds at most its time limit.
public import Diagnostics
public import EventLoops
internal import Invocations
public import RedisClients

/// One cache for all functions of a host.
@EventLoop
public final class InferenceCache {
    public let limits: InferenceCacheLimits
    let memory: MemoryCache
    let redis: RedisClient?
    let log: EventLog
    private var flights: [SHA256Digest: Flight] = [:]
    private var breaker = CircuitBreaker()
    private var tallies: [String: InferenceCacheTally] = [:]
    private let rangeEnd: [UInt8]
    private var random = SystemRandomNumberGenerator()

    private static let getRange = Array("GETRANGE".utf8)
    private static let zero = Array("0".utf8)
    private static let set = Array("SET".utf8)
    private static let expireMilliseconds = Array("PX".utf8)

    /// A result being computed, and who waits for it.
    @EventLoop
    final class Flight {
        private var waiting: [@EventLoop (CachedResult?) -> Void] = []
        private var outcome: CachedResult??

        /// Calls `done` with the result, or nil when there is none to share.
        func whenDone(_ done: @escaping @EventLoop (CachedResult?) -> Void) {
            if let outcome { done(outcome) } else { waiting.append(done) }
        }

        func end(_ result: CachedResult?) {
            outcome = .some(result)
            let all = waiting
            waiting = []
            for one in all { one(result) }
        }
    }

    public init(limits: InferenceCacheLimits, redis: RedisClient?, log: EventLog) {
        self.limits = limits
        self.redis = redis
        self.log = log
        memory = MemoryCache(entryLimit: limits.entryCount, byteLimit: limits.memoryByteCount)
        // A value is asked for by range, so that one of 600 MB under our key sends no more than ours can have.
        rangeEnd = Array("\(limits.entryByteCount + CachedResult.overhead - 1)".utf8)
        redis?.connectIfNeeded()
    }

    // MARK: What is known of it

    /// The counts of a function, kept by name.
    public func tally(of function: String) -> InferenceCacheTally {
        if let known = tallies[function] { return known }
        let made = InferenceCacheTally()
        tallies[function] = made
        return made
    }

    /// Counts by function, in name order.
    public var countsByFunction: [(name: String, counts: InferenceCacheCounts)] {
        tallies.sorted { $0.key < $1.key }.map { ($0.key, $0.value.counts) }
    }

    /// Counts of all functions.
    public var counts: InferenceCacheCounts {
        tallies.values.reduce(into: InferenceCacheCounts()) { $0.add($1.counts) }
    }

    public var entryCount: Int { memory.count }
    public var byteCount: Int { memory.byteCount }
    public var evictionCount: Int { memory.evictions }
    /// What is wrong with Redis now, or nil.
    public var redisProblem: RedisError? { redis?.lastError }
    /// What a person wants to know of the connection.
    public var redisState: String {
        guard let redis else { return "none" }
        return breaker.isOpen ? "\(redis.state), left alone for a while" : redis.state
    }
    /// Whether the circuit breaker holds commands back.
    public var isBreakerOpen: Bool { breaker.isOpen }
    /// Whether commands can be sent to Redis now.
    public var isRedisConnected: Bool { redis?.isConnected == true }
    /// Connections made to Redis since the start.
    public var redisConnectionCount: Int { redis?.connectionCount ?? 0 }
    /// Commands that a cluster sent on to another node.
    public var redisRedirectionCount: Int { redis?.redirectionCount ?? 0 }
    /// Whether a Redis is configured.
    public var hasRedis: Bool { redis != nil }

    // MARK: Results

    func inMemory(_ key: SHA256Digest) -> CachedResult? {
        memory.isOff ? nil : memory.result(for: key, now: monotonicNanoseconds())
    }

    func add(alias: SHA256Digest, to key: SHA256Digest) {
        if !memory.isOff { memory.add(alias: alias, to: key) }
    }

    /// The computation of `key` that is under way, if any.
    func flight(of key: SHA256Digest) -> Flight? { flights[key] }

    func begin(_ key: SHA256Digest) { flights[key] = Flight() }

    /// Ends the computation of `key`; those who waited get `result`, or compute for themselves.
    func end(_ key: SHA256Digest, _ result: CachedResult?) { flights.removeValue(forKey: key)?.end(result) }

    /// Whether Redis may be asked now.
    func mayAskRedis() -> Bool {
        guard let redis else { return false }
        guard redis.isConnected else {
            redis.connectIfNeeded()
            return false
        }
        return breaker.allows(now: monotonicNanoseconds())
    }

    /// Looks into Redis, within its time limit.
    func lookInRedis(
        _ key: CacheKey, _ tally: InferenceCacheTally, keeps: Bool = true,
        _ done: @escaping @EventLoop (CachedResult?) -> Void
    ) {
        guard let redis, mayAskRedis() else { return done(nil) }
        redis.send([Self.getRange, key.name, Self.zero, rangeEnd], key: key.name, limit: limits.redisTimeout) {
            [self] answer in
            switch answer {
            case .success(.bytes(let bytes)):
                noteSuccess()
                guard !bytes.isEmpty else { return done(nil) }
                tally.counts.redisBytesRead += bytes.count
                guard let result = CachedResult(stored: bytes, limit: limits.entryByteCount) else {
                    tally.counts.redisErrors += 1
                    log(
                        HostEvent(
                            .cacheEvent, .warning, "a damaged value in Redis counts as a miss",
                            [("key", .text(String(decoding: key.name, as: UTF8.self)))]))
                    return done(nil)
                }
                let age = result.ageMilliseconds(now: unixMilliseconds())
                guard age < result.freshMilliseconds + limits.staleWhileRevalidate.wholeMilliseconds else {
                    return done(nil)
                }
                tally.counts.redisHits += 1
                if keeps { keepInMemory(result, key, age: age) }
                done(result)
            case .success:
                noteSuccess()
                done(nil)
            case .failure(let error):
                noteFailure(error, tally)
                done(nil)
            }
        }
    }

    func noteSuccess() {
        guard breaker.succeeded() else { return }
        log(HostEvent(.cacheEvent, .information, "Redis is used again"))
    }

    func noteFailure(_ error: RedisError, _ tally: InferenceCacheTally) {
        tally.counts.redisErrors += 1
        // What fails at once costs no time, and says nothing about the other nodes of a cluster.
        switch error {
        case .unavailable, .slotsMissing, .tls, .refused: return
        default: break
        }
        guard breaker.failed(now: monotonicNanoseconds()) else { return }
        log(
            HostEvent(
                .cacheEvent, .warning, "Redis is left alone for a while",
                [("error", .text(error.message)), ("code", .text(error.code))]))
    }

    /// The time to live of one more result, shortened by chance.
    func freshTime() -> Duration {
        limits.timeToLive * (1 - limits.jitter * Double.random(in: 0...1, using: &random))
    }

    /// Keeps a result in memory and, without waiting, in Redis.
    func store(_ result: CachedResult, _ key: CacheKey, _ tally: InferenceCacheTally) {
        guard result.byteCount <= limits.entryByteCount else { return }
        keepInMemory(result, key, age: 0)
        guard let redis, result.failure == nil, mayAskRedis() else { return }
        let kept = result.freshMilliseconds + limits.staleWhileRevalidate.wholeMilliseconds
        let stored = result.stored(compressAbove: limits.compressAboveByteCount)
        tally.counts.redisBytesWritten += stored.count
        let command = [Self.set, key.name, stored, Self.expireMilliseconds, Array("\(max(1, kept))".utf8)]
        redis.send(ignoringReplyTo: command, key: key.name) { [weak self] error in self?.noteFailure(error, tally) }
    }

    /// Keeps a user's error for its own, short time, in memory only.
    func storeError(_ result: CachedResult, _ key: CacheKey) {
        guard result.byteCount <= limits.entryByteCount else { return }
        memory.store(
            result, key: key.digest, label: key.label,
            expires: monotonicNanoseconds() + result.freshMilliseconds * 1_000_000)
    }

    private func keepInMemory(_ result: CachedResult, _ key: CacheKey, age: UInt64) {
        let kept = result.freshMilliseconds + limits.staleWhileRevalidate.wholeMilliseconds
        guard kept > age else { return }
        memory.store(
            result, key: key.digest, label: key.label, expires: monotonicNanoseconds() + (kept - age) * 1_000_000)
    }
}
