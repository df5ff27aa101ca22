/// Limits and times of the inference cache, from host.json `inferenceCache`.
internal import Diagnostics
public import EventLoops

public struct InferenceCacheLimits: Sendable {
    public var timeToLive: Duration
    /// The part of the time to live by which it is shortened at random, so that results do not expire together.
    public var jitter = 0.1
    /// How long after its time a result is still given while a new one is computed.
    public var staleWhileRevalidate = Duration.zero
    /// How long a user's error is kept; zero: not at all.
    public var errorTimeToLive = Duration.zero
    public var entryCount: Int
    public var memoryByteCount: Int
    public var entryByteCount: Int
    public var redisTimeout: Duration
    public var keyPrefix: String
    /// Bodies of so many bytes are compressed for Redis.
    public var compressAboveByteCount = 4096
    /// Whether hosts that share a Redis compute equal requests once.
    public var sharesFlights = true

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

/// Counts since the start: of one function, or of all.
public struct InferenceCacheCounts: Sendable {
    public var hits = 0
    public var misses = 0
    public var bypasses = 0
    public var stale = 0
    /// Requests that waited for an equal one, on this host or another.
    public var shared = 0
    public var redisHits = 0
    public var redisErrors = 0
    /// Bytes of values that came from Redis and went there.
    public var redisBytesRead = 0
    public var redisBytesWritten = 0
    public var savedNanoseconds: UInt64 = 0

    mutating func add(_ other: InferenceCacheCounts) {
        hits += other.hits
        misses += other.misses
        bypasses += other.bypasses
        stale += other.stale
        shared += other.shared
        redisHits += other.redisHits
        redisErrors += other.redisErrors
        redisBytesRead += other.redisBytesRead
        redisBytesWritten += other.redisBytesWritten
        savedNanoseconds += other.savedNanoseconds
    }
}

/// Counts of one function; outlives a reload of it.
@EventLoop
public final class InferenceCacheTally {
    public internal(set) var counts = InferenceCacheCounts()

    public init() {}

    func count(_ result: CacheResult, saved: UInt64 = 0) {
        switch result {
        case .hit: counts.hits += 1
        case .miss: counts.misses += 1
        case .bypass: counts.bypasses += 1
        case .stale: counts.stale += 1
        }
        counts.savedNanoseconds += saved
    }
}
