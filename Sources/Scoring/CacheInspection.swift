/// Looking into the inference cache: what is kept, under which key and why, and whether it is still right.
internal import Diagnostics
public import EventLoops
public import Invocations
internal import JSONText
public import RedisClients

/// One kept result, as `andiron cache ls` shows it.
public struct CacheListing: Sendable {
    public let name: String
    public let isInMemory: Bool
    public let isInRedis: Bool
    /// Bytes, in memory or as stored.
    public let byteCount: Int
    /// Seconds until it leaves Redis; nil when only memory has it.
    public let secondsLeft: Int?
}

/// One kept result with its body.
public struct CacheEntry: Sendable {
    public let name: String
    public let status: Int
    public let contentType: String?
    public let ageSeconds: Int
    public let freshSeconds: Int
    public let runNanoseconds: UInt64
    public let body: [UInt8]
    public let isFromMemory: Bool
}

/// What an input's key is made of.
public struct CacheExplanation: Sendable {
    public let versionTag: String
    public let functionName: String
    public let bundle: SHA256Digest
    /// `json` where equal JSON is one input, else what counts: `bytes`, `request`, `headers`.
    public let kind: InputKind
    /// The canonical bytes, when they are JSON's.
    public let canonical: [UInt8]?
    public let name: String
    public let isCacheable: Bool
    public let isInMemory: Bool
    public let isInRedis: Bool
}

extension InferenceCache {
    /// Keys that one listing gives, and a flush takes in one go.
    public static let listLimit = 10_000
    private static let patience = Duration.seconds(5)

    /// Results kept, of one function or of all; those in memory first.
    public func list(function: String?, limit: Int) async throws(RedisError) -> [CacheListing] {
        let inMemory = memory.all.filter { item in function == nil || item.label.functionName == function }
        var known: [String: CacheListing] = [:]
        var order: [String] = []
        for item in inMemory.prefix(limit) {
            let name = String(decoding: item.label.key(item.key).name, as: UTF8.self)
            known[name] = CacheListing(
                name: name, isInMemory: true, isInRedis: false, byteCount: item.result.byteCount, secondsLeft: nil)
            order.append(name)
        }
        guard let redis, redis.isConnected else { return order.compactMap { known[$0] } }
        let pattern = CacheKeyPrefix.pattern(keyPrefix: limits.keyPrefix, functionName: function)
        for key in try await redis.scan(pattern, limit: limit) where !key.suffix(5).elementsEqual(":lock".utf8) {
            let name = String(decoding: key, as: UTF8.self)
            async let left = redis.command([Array("PTTL".utf8), key], key: key, limit: Self.patience)
            let length = try await redis.command([Array("STRLEN".utf8), key], key: key, limit: Self.patience)
            guard case .integer(let bytes) = length, case .integer(let milliseconds) = (try? await left) ?? .null
            else { continue }
            if known[name] == nil { order.append(name) }
            known[name] = CacheListing(
                name: name, isInMemory: known[name] != nil, isInRedis: true, byteCount: bytes,
                secondsLeft: max(0, milliseconds / 1000))
        }
        return order.prefix(limit).compactMap { known[$0] }
    }

    /// A kept result by its name; nil when there is none, or it is damaged.
    public func entry(named name: String) async throws(RedisError) -> CacheEntry? {
        let bytes = Array(name.utf8)
        if let item = memory.all.first(where: { $0.label.key($0.key).name == bytes }) {
            return entry(name, item.result, isFromMemory: true)
        }
        guard let redis, redis.isConnected, name.hasPrefix(limits.keyPrefix) else { return nil }
        let end = Array("\(limits.entryByteCount + CachedResult.overhead)".utf8)
        let reply = try await redis.command(
            [Array("GETRANGE".utf8), bytes, Array("0".utf8), end], key: bytes, limit: Self.patience)
        guard case .bytes(let stored) = reply, let result = CachedResult(stored: stored) else { return nil }
        return entry(name, result, isFromMemory: false)
    }

    private func entry(_ name: String, _ result: CachedResult, isFromMemory: Bool) -> CacheEntry {
        CacheEntry(
            name: name, status: result.status, contentType: result.contentType,
            ageSeconds: Int(result.ageMilliseconds(now: unixMilliseconds()) / 1000),
            freshSeconds: Int(result.freshMilliseconds / 1000), runNanoseconds: result.runNanoseconds,
            body: result.body, isFromMemory: isFromMemory)
    }

    /// Forgets results: of one function, or all; here and in Redis. Returns how many.
    public func flush(function: String?) async throws(RedisError) -> Int {
        var names = Set<[UInt8]>()
        for item in memory.all where function == nil || item.label.functionName == function {
            names.insert(item.label.key(item.key).name)
            memory.remove(item.key)
        }
        if let redis, redis.isConnected {
            let pattern = CacheKeyPrefix.pattern(keyPrefix: limits.keyPrefix, functionName: function)
            while case let keys = try await redis.scan(pattern, limit: Self.listLimit), !keys.isEmpty {
                for key in keys {
                    names.insert(key)
                    redis.send(ignoringReplyTo: [Array("UNLINK".utf8), key], key: key) { _ in }
                }
                // The next question is answered after these commands.
                if keys.count < Self.listLimit { break }
            }
        }
        log(
            HostEvent(
                .cacheEvent, .information, "results forgotten",
                [("count", .integer(names.count)), ("function", .text(function ?? "all"))]))
        return names.count
    }
}

extension ScoringPipeline {
    /// What the key of an input is made of; nil without a cache.
    public func explain(_ event: TriggerEvent) async throws(InvocationFailure) -> CacheExplanation? {
        guard let cache else { return nil }
        let identity = try await currentIdentity(event)
        let (prefix, exact) = keys(of: event, identity, cache)
        let value = identity.kind == .json ? try? JSONParser.parse(event.body) : nil
        let key = prefix.key(value.map { prefix.digest(of: $0.canonicalBytes) } ?? exact)
        let found = await withUnsafeContinuation { continuation in
            cache.lookInRedis(key, InferenceCacheTally(), keeps: false) { continuation.resume(returning: $0 != nil) }
        }
        return CacheExplanation(
            versionTag: CacheKeyPrefix.versionTag, functionName: functionName, bundle: identity.version,
            kind: identity.kind, canonical: value?.canonicalBytes,
            name: String(decoding: key.name, as: UTF8.self), isCacheable: isCacheable(event, identity.kind),
            isInMemory: cache.inMemory(key.digest) != nil, isInRedis: found)
    }

    /// Computes an input anew and gives the kept result beside it; nil when none is kept.
    public func verify(
        _ event: TriggerEvent, _ invocation: Invocation
    ) async throws(InvocationFailure) -> (kept: CacheEntry, fresh: ScoringResponse)? {
        guard let cache, let explanation = try await explain(event) else { return nil }
        guard let kept = try? await cache.entry(named: explanation.name) else { return nil }
        switch await scorer.score(invocation).value() {
        case .completed(let response): return (kept, response)
        case .failed(let failure): throw failure
        }
    }

    private func currentIdentity(_ event: TriggerEvent) async throws(InvocationFailure) -> InputIdentity {
        if let identity = scorer.identity { return identity }
        var random = RandomBytes()
        let invocation = Invocation(
            id: InvocationID(from: &random), functionName: functionName, event: event,
            stages: StageTimes(entering: .workerWait, at: monotonicNanoseconds()))
        return try await scorer.prepare(invocation)
    }
}
