/// From an invocation to its result: features, cache, single flight, scorer.
internal import Diagnostics
public import EventLoops
internal import HTTPMessages
public import Invocations
internal import JSONText

/// One function's way to its results.
@EventLoop
public final class ScoringPipeline {
    let scorer: any Scorer
    let cache: InferenceCache?
    private let usesCache: Bool?
    let functionName: String
    private let features: FeatureInput?
    let tally: InferenceCacheTally
    private var prefix: CacheKeyPrefix?
    /// How long `run()` usually takes, in nanoseconds; 0 until the first.
    private var usualRun: UInt64 = 0
    private var random = RandomBytes()

    /// - Parameters:
    ///   - cache: the host's cache, or nil when it is off.
    ///   - usesCache: what the function says; nil means yes unless the script takes raw requests.
    ///   - functionName: part of every key, with the bundle's digest and the input.
    ///   - features: fetches the model's input from Redis, for a function that says so.
    public init(
        scorer: any Scorer, cache: InferenceCache?, usesCache: Bool?, functionName: String,
        features: FeatureInput? = nil
    ) {
        self.scorer = scorer
        self.cache = usesCache == false ? nil : cache
        self.usesCache = usesCache
        self.functionName = functionName
        self.features = features
        tally = self.cache?.tally(of: functionName) ?? InferenceCacheTally()
    }

    /// The result for an invocation, from the cache or computed.
    public func score(_ invocation: Invocation) -> Eventual<InvocationOutcome> {
        guard let features else { return scoreInput(invocation) }
        return .later { [self] done in
            features.fetch(invocation.event.body) { [self] outcome in
                switch outcome {
                case .success(let body):
                    if let body { invocation.event.body = body }
                    scoreInput(invocation).whenDone(done)
                case .failure(let failure): done(.failed(failure))
                }
            }
        }
    }

    /// The model's input for a request's body: with features fetched, where the function has them.
    public func input(of body: [UInt8]) async throws(InvocationFailure) -> [UInt8] {
        guard let features else { return body }
        let result = await withUnsafeContinuation { continuation in
            features.fetch(body) { continuation.resume(returning: $0) }
        }
        return try result.get() ?? body
    }

    private func scoreInput(_ invocation: Invocation) -> Eventual<InvocationOutcome> {
        guard let cache else { return scorer.score(invocation) }
        invocation.enter(.cacheLookup)
        if let identity = scorer.identity { return lookUp(invocation, cache, identity) }
        return .awaiting { [self] in
            do throws(InvocationFailure) {
                let identity = try await scorer.prepare(invocation)
                return await lookUp(invocation, cache, identity).value()
            } catch {
                return .failed(error)
            }
        }
    }

    /// The keys of an input: as it is written, and as it is meant.
    func keys(
        of event: TriggerEvent, _ identity: InputIdentity, _ cache: InferenceCache
    ) -> (prefix: CacheKeyPrefix, exact: SHA256Digest) {
        if prefix?.version != identity.version {
            prefix = CacheKeyPrefix(
                keyPrefix: cache.limits.keyPrefix, functionName: functionName, version: identity.version)
        }
        let prefix =
            prefix
            ?? CacheKeyPrefix(
                keyPrefix: cache.limits.keyPrefix, functionName: functionName, version: identity.version)
        return (prefix, prefix.digest(of: Self.input(event, identity.kind)))
    }

    private func lookUp(
        _ invocation: Invocation, _ cache: InferenceCache, _ identity: InputIdentity
    ) -> Eventual<InvocationOutcome> {
        let kind = identity.kind
        guard isCacheable(invocation.event, kind) else {
            invocation.cache = .bypass
            tally.count(.bypass)
            return scorer.score(invocation)
        }
        let (prefix, exact) = keys(of: invocation.event, identity, cache)
        if let result = cache.inMemory(exact) { return .now(hit(invocation, cache, result, key: prefix.key(exact))) }
        var digest = exact
        if kind == .json, let value = try? JSONParser.parse(invocation.event.body) {
            digest = prefix.digest(of: value.canonicalBytes)
            if let result = cache.inMemory(digest) {
                cache.add(alias: exact, to: digest)
                return .now(hit(invocation, cache, result, key: prefix.key(digest)))
            }
        }
        let key = prefix.key(digest)
        return .later { [self] done in miss(invocation, cache, key, exact, done) }
    }

    /// Not in memory: another request may be computing it, Redis may have it, another host may be computing it.
    private func miss(
        _ invocation: Invocation, _ cache: InferenceCache, _ key: CacheKey, _ exact: SHA256Digest,
        _ done: @escaping @EventLoop (InvocationOutcome) -> Void
    ) {
        if let flight = cache.flight(of: key.digest) {
            invocation.enter(.workerWait)
            return flight.whenDone { [self] result in
                guard let result else { return compute(invocation, cache, key, exact, claimed: nil, done) }
                tally.counts.shared += 1
                done(hit(invocation, cache, result, key: key))
            }
        }
        cache.begin(key.digest)
        cache.lookInRedis(key, tally) { [self] result in
            if let result {
                cache.add(alias: exact, to: key.digest)
                cache.end(key.digest, result)
                return done(hit(invocation, cache, result, key: key))
            }
            guard let time = cache.sharedFlightTime(usualRun: usualRun) else {
                return compute(invocation, cache, key, exact, claimed: nil, done)
            }
            cache.claim(key, for: time, tally) { [self] isOurs in
                if isOurs { return compute(invocation, cache, key, exact, claimed: time, done) }
                invocation.enter(.workerWait)
                loopTask { [self] in
                    guard let result = await cache.waitForOther(key, atMost: time, tally) else {
                        return compute(invocation, cache, key, exact, claimed: nil, done)
                    }
                    cache.end(key.digest, result)
                    done(hit(invocation, cache, result, key: key))
                }
            }
        }
    }

    private func compute(
        _ invocation: Invocation, _ cache: InferenceCache, _ key: CacheKey, _ exact: SHA256Digest, claimed: Duration?,
        _ done: @escaping @EventLoop (InvocationOutcome) -> Void
    ) {
        invocation.cache = .miss
        tally.count(.miss)
        scorer.score(invocation).whenDone { [self] outcome in
            invocation.enter(.cacheStore)
            keep(outcome, cache, key, exact)
            if claimed != nil { cache.release(key) }
            done(outcome)
        }
    }

    /// Keeps what may be kept, and gives it to those who wait.
    private func keep(_ outcome: InvocationOutcome, _ cache: InferenceCache, _ key: CacheKey, _ exact: SHA256Digest) {
        guard case .completed(let response) = outcome else { return cache.end(key.digest, nil) }
        if response.runNanoseconds > 0 {
            usualRun = usualRun == 0 ? response.runNanoseconds : (usualRun * 7 + response.runNanoseconds) / 8
        }
        if response.status == 200, response.failure == nil, !response.runFunctionFailed {
            let result = CachedResult(response, fresh: cache.freshTime())
            cache.store(result, key, tally)
            cache.add(alias: exact, to: key.digest)
            cache.end(key.digest, result)
        } else if cache.limits.errorTimeToLive > .zero, Self.isUsersError(response) {
            let result = CachedResult(response, fresh: cache.limits.errorTimeToLive)
            cache.storeError(result, key)
            cache.end(key.digest, result)
        } else {
            cache.end(key.digest, nil)
        }
    }

    /// What the same input would get again: the script's own 4xx, and an error that `run()` raised.
    private static func isUsersError(_ response: ScoringResponse) -> Bool {
        if let failure = response.failure { return failure.code == "AN4004" }
        return response.runFunctionFailed || (400..<500).contains(response.status)
    }

    private func hit(
        _ invocation: Invocation, _ cache: InferenceCache, _ result: CachedResult, key: @autoclosure () -> CacheKey
    ) -> InvocationOutcome {
        let age = result.ageMilliseconds(now: unixMilliseconds())
        let isFresh = age < result.freshMilliseconds
        invocation.cache = isFresh ? .hit : .stale
        invocation.cacheAge = Int(min(age / 1000, UInt64(Int32.max)))
        tally.count(isFresh ? .hit : .stale, saved: result.runNanoseconds)
        if !isFresh { revalidate(invocation.event, cache, key()) }
        return .completed(result.response)
    }

    /// Computes a result anew, in the background and once, while its old one is given.
    private func revalidate(_ event: TriggerEvent, _ cache: InferenceCache, _ key: CacheKey) {
        guard cache.flight(of: key.digest) == nil else { return }
        cache.begin(key.digest)
        let again = Invocation(
            id: InvocationID(from: &random), functionName: functionName, event: event,
            stages: StageTimes(entering: .workerWait, at: monotonicNanoseconds()))
        let work = { @EventLoop [self] in
            scorer.score(again).whenDone { [self] outcome in
                keep(outcome, cache, key, key.digest)
                cache.release(key)
            }
        }
        guard let time = cache.sharedFlightTime(usualRun: usualRun) else { return work() }
        // Of several hosts one is enough; the others take its result when they ask Redis next.
        cache.claim(key, for: time, tally) { isOurs in
            if isOurs { work() } else { cache.end(key.digest, nil) }
        }
    }

    func isCacheable(_ event: TriggerEvent, _ kind: InputKind) -> Bool {
        // A script that takes raw requests or headers may answer anything to anyone: only when it asks.
        if kind == .headers || (kind == .request && usesCache != true) { return false }
        guard let head = event.head else { return true }
        if let control = head.value("cache-control")?.lowercased(),
            control.contains("no-cache") || control.contains("no-store")
        {
            return false
        }
        return kind == .request || !head.isMethod("GET")
    }

    /// The bytes a result depends on: the body, and for raw scripts the whole request line.
    private static func input(_ event: TriggerEvent, _ kind: InputKind) -> [UInt8] {
        guard kind == .request, let head = event.head else { return event.body }
        let query = head.query.map { "?" + String(decoding: $0, as: UTF8.self) } ?? ""
        return Array("\(head.method) \(String(decoding: head.path, as: UTF8.self))\(query)\n".utf8) + event.body
    }
}
