/// The inference cache: results in memory and, when there is one, in Redis; equal requests computed once.
///
/// A cache that fails is a cache that missed: nothing here throws, and Redis adds at most its time limit.
public import Diagnostics
public import EventLoops
internal import Invocations
public import RedisClients

/// Limits and times of the cache.
public struct InferenceCacheLimits: Sendable {
    public var timeToLive: Duration
    public var entryCount: Int
    public var memoryByteCount: Int
    public var entryByteCount: Int
    public var redisTimeout: Duration
    public var keyPrefix: String

    public init(
        timeToLive: Duration, entryCount: Int, memoryByteCount: Int, entryByteCount: Int, redisTimeout: Duration,
        keyPrefix: String
    ) {
        self.timeToLive = timeToLive
        self.entryCount = entryCount
        self.memoryByteCount = memoryByteCount
        self.entryByteCount = entryByteCount
        self.redisTimeout = redisTimeout
        self.keyPrefix = keyPrefix
    }
}

/// Counts since the start.
public struct InferenceCacheCounts: Sendable {
    public var hits = 0
    public var misses = 0
    public var bypasses = 0
    public var shared = 0
    public var redisHits = 0
    public var redisErrors = 0
    /// Commands that a cluster sent on to another node.
    public var redirections = 0
    /// Connections made to Redis.
    public var connections = 0
    public var entries = 0
    public var bytes = 0
    public var evictions = 0
    public var savedNanoseconds: UInt64 = 0
}

/// One cache for all functions of a host.
@EventLoop
public final class InferenceCache {
    let limits: InferenceCacheLimits
    private let memory: MemoryCache
    private let redis: RedisClient?
    /// A value is asked for by range, so that one of 600 MB under our key sends no more than ours can have.
    private let rangeEnd: [UInt8]
    /// Bytes a stored result has at most beside its body and fields.
    private static let overhead = 1024
    private let log: EventLog
    private var flights: [SHA256Digest: Flight] = [:]
    private var breaker = CircuitBreaker()
    private var tally = InferenceCacheCounts()

    /// A result being computed, and who waits for it.
    @EventLoop
    final class Flight {
        var result: CachedResult?
        let done = Gate()
    }

    public init(limits: InferenceCacheLimits, redis: RedisClient?, log: EventLog) {
        self.limits = limits
        self.redis = redis
        rangeEnd = Array("\(limits.entryByteCount + Self.overhead - 1)".utf8)
        self.log = log
        memory = MemoryCache(entryLimit: limits.entryCount, byteLimit: limits.memoryByteCount)
        redis?.connectIfNeeded()
    }

    public var counts: InferenceCacheCounts {
        var counts = tally
        counts.entries = memory.count
        counts.redirections = redis?.redirectionCount ?? 0
        counts.connections = redis?.connectionCount ?? 0
        counts.bytes = memory.byteCount
        counts.evictions = memory.evictions
        return counts
    }

    /// What is wrong with Redis now, or nil.
    public var redisProblem: RedisError? { redis?.lastError }
    /// What a person wants to know of the connection.
    public var redisState: String { redis?.state ?? "none" }
    /// Whether commands can be sent to Redis now.
    public var isRedisConnected: Bool { redis?.isConnected == true }
    /// Whether a Redis is configured.
    public var hasRedis: Bool { redis != nil }

    func count(_ result: CacheResult, saved: UInt64 = 0) {
        switch result {
        case .hit: tally.hits += 1
        case .miss: tally.misses += 1
        case .bypass: tally.bypasses += 1
        }
        tally.savedNanoseconds += saved
    }

    func inMemory(_ key: SHA256Digest) -> CachedResult? { memory.result(for: key, now: monotonicNanoseconds()) }

    func add(alias: SHA256Digest, to key: SHA256Digest) { memory.add(alias: alias, to: key) }

    /// The computation of `key` that is under way, if any.
    func flight(of key: SHA256Digest) -> Flight? {
        if flights[key] != nil { tally.shared += 1 }
        return flights[key]
    }

    func begin(_ key: SHA256Digest) { flights[key] = Flight() }

    /// Ends the computation of `key`; those who waited get `result`, or compute for themselves.
    func end(_ key: SHA256Digest, _ result: CachedResult?) {
        let flight = flights.removeValue(forKey: key)
        flight?.result = result
        flight?.done.open()
    }

    /// Looks into Redis, within its time limit.
    func inRedis(_ key: SHA256Digest) async -> CachedResult? {
        guard let redis, breaker.allows(now: monotonicNanoseconds()) else { return nil }
        do throws(RedisError) {
            let name = name(of: key)
            let reply = try await redis.command(
                [Array("GETRANGE".utf8), name, Array("0".utf8), rangeEnd], key: name, limit: limits.redisTimeout)
            breaker.succeeded()
            guard case .bytes(let bytes) = reply, !bytes.isEmpty else { return nil }
            guard let result = CachedResult(stored: bytes) else {
                tally.redisErrors += 1
                log(
                    HostEvent(
                        .cacheEvent, .warning, "a damaged value in Redis counts as a miss", [("key", .text("\(key)"))]))
                return nil
            }
            tally.redisHits += 1
            keepInMemory(result, key)
            return result
        } catch {
            tally.redisErrors += 1
            // What fails at once costs no time and says nothing about the other nodes of a cluster.
            switch error {
            case .unavailable, .slotsMissing, .tls, .refused: return nil
            default: break
            }
            if breaker.failed(now: monotonicNanoseconds()) {
                log(
                    HostEvent(
                        .cacheEvent, .warning, "Redis is left alone for a while",
                        [("error", .text(error.message)), ("code", .text(error.code))]))
            }
            return nil
        }
    }

    /// Keeps a result in memory and, without waiting, in Redis.
    func store(_ result: CachedResult, _ key: SHA256Digest) {
        guard result.byteCount <= limits.entryByteCount else { return }
        keepInMemory(result, key)
        guard let redis, redis.isConnected, breaker.allows(now: monotonicNanoseconds()) else {
            redis?.connectIfNeeded()
            return
        }
        let milliseconds = Array("\(limits.timeToLive.wholeMilliseconds)".utf8)
        let name = name(of: key)
        redis.send(
            ignoringReplyTo: [Array("SET".utf8), name, result.stored, Array("PX".utf8), milliseconds], key: name
        ) { [self] _ in tally.redisErrors += 1 }
    }

    private func keepInMemory(_ result: CachedResult, _ key: SHA256Digest) {
        memory.store(result, key: key, expires: monotonicNanoseconds() + limits.timeToLive.wholeNanoseconds)
    }

    private func name(of key: SHA256Digest) -> [UInt8] { Array("\(limits.keyPrefix)\(key)".utf8) }
}

/// Leaves a failing Redis alone: after three failures in a row for a second, then one try at a time.
struct CircuitBreaker {
    static let failureLimit = 3
    static let pause = Duration.seconds(1)

    private var failures = 0
    private var openUntil: UInt64 = 0

    func allows(now: UInt64) -> Bool { now >= openUntil }

    mutating func succeeded() { failures = 0 }

    /// Counts a failure; true when this one opened the breaker.
    mutating func failed(now: UInt64) -> Bool {
        failures += 1
        guard failures >= Self.failureLimit else { return false }
        openUntil = now + Self.pause.wholeNanoseconds
        return failures == Self.failureLimit
    }
}
