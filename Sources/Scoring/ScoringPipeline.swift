/// From an invocation to its result: cache, single flight, scorer.
internal import Diagnostics
public import EventLoops
internal import HTTPMessages
public import Invocations
internal import JSONText

/// One function's way to its results.
@EventLoop
public final class ScoringPipeline {
    private let scorer: any Scorer
    private let cache: InferenceCache?
    private let usesCache: Bool?
    private let keyPrefix: [UInt8]

    /// - Parameters:
    ///   - cache: the host's cache, or nil when it is off.
    ///   - usesCache: what the function says; nil means yes unless the script takes raw requests.
    ///   - functionName: part of every key, with the bundle's digest and the input.
    public init(scorer: any Scorer, cache: InferenceCache?, usesCache: Bool?, functionName: String) {
        self.scorer = scorer
        self.cache = usesCache == false ? nil : cache
        self.usesCache = usesCache
        keyPrefix = SHA256Digest(of: Array("andiron result 1\n\(functionName)".utf8)).bytes
    }

    /// The result for an invocation, from the cache or computed.
    public func score(_ invocation: Invocation) -> Eventual<InvocationOutcome> {
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

    private func lookUp(
        _ invocation: Invocation, _ cache: InferenceCache, _ identity: InputIdentity
    ) -> Eventual<InvocationOutcome> {
        let kind = identity.kind
        guard isCacheable(invocation.event, kind) else {
            invocation.cache = .bypass
            cache.count(.bypass)
            return scorer.score(invocation)
        }
        let exact = SHA256Digest(of: keyPrefix, identity.version.bytes, input(invocation.event, kind))
        if let result = cache.inMemory(exact) { return .now(hit(invocation, cache, result)) }
        var key = exact
        if kind == .json, let value = try? JSONParser.parse(invocation.event.body) {
            key = SHA256Digest(of: keyPrefix, identity.version.bytes, value.canonicalBytes)
            if let result = cache.inMemory(key) {
                cache.add(alias: exact, to: key)
                return .now(hit(invocation, cache, result))
            }
        }
        return .awaiting { [self, key] in await compute(invocation, cache, key: key, exact: exact) }
    }

    private func compute(
        _ invocation: Invocation, _ cache: InferenceCache, key: SHA256Digest, exact: SHA256Digest
    ) async -> InvocationOutcome {
        if let flight = cache.flight(of: key) {
            invocation.enter(.workerWait)
            await flight.done.wait()
            if let result = flight.result { return hit(invocation, cache, result) }
        } else {
            cache.begin(key)
            if let result = await cache.inRedis(key) {
                cache.end(key, result)
                return hit(invocation, cache, result)
            }
        }
        invocation.cache = .miss
        cache.count(.miss)
        let outcome = await scorer.score(invocation).value()
        invocation.enter(.cacheStore)
        guard case .completed(let response) = outcome, response.status == 200, response.failure == nil,
            !response.runFunctionFailed
        else {
            cache.end(key, nil)
            return outcome
        }
        let result = CachedResult(response)
        cache.store(result, key)
        cache.add(alias: exact, to: key)
        cache.end(key, result)
        return outcome
    }

    private func hit(_ invocation: Invocation, _ cache: InferenceCache, _ result: CachedResult) -> InvocationOutcome {
        invocation.cache = .hit
        cache.count(.hit, saved: result.runNanoseconds)
        return .completed(result.response)
    }

    private func isCacheable(_ event: TriggerEvent, _ kind: InputKind) -> Bool {
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
    private func input(_ event: TriggerEvent, _ kind: InputKind) -> [UInt8] {
        guard kind == .request, let head = event.head else { return event.body }
        let query = head.query.map { "?" + String(decoding: $0, as: UTF8.self) } ?? ""
        return Array("\(head.method) \(String(decoding: head.path, as: UTF8.self))\(query)\n".utf8) + event.body
    }
}
