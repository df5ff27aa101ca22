import Diagnostics
import EventLoops
import HTTPMessages
import HostTestSupport
import Invocations
@testable import Scoring
import Testing

private func result(_ text: String) -> CachedResult {
    CachedResult(ScoringResponse(body: Array(text.utf8), runNanoseconds: 5))
}

private let label = CacheKeyPrefix(keyPrefix: "t:", functionName: "F", version: key("v1"))

private func key(_ text: String) -> SHA256Digest { SHA256Digest(of: Array(text.utf8)) }

@Suite struct CachedResultTests {
    @Test func `a stored result is read back`() throws {
        var fields = HTTPFields()
        fields.add("X-A", "b")
        let original = CachedResult(
            ScoringResponse(status: 200, contentType: "text/x", fields: fields, body: [1, 2, 3], runNanoseconds: 99))
        let copy = try #require(CachedResult(stored: original.stored()))
        #expect(copy.status == 200)
        #expect(copy.contentType == "text/x")
        #expect(copy.fields == fields.bytes)
        #expect(copy.body == [1, 2, 3])
        #expect(copy.runNanoseconds == 99)
    }

    @Test func `a large body is compressed, and read within its limit only`() throws {
        let body = Array(String(repeating: "[0.25, 0.5], ", count: 1000).utf8)
        let original = CachedResult(ScoringResponse(body: body), createdMilliseconds: 7, fresh: .milliseconds(9))
        let stored = original.stored(compressAbove: 4096)
        #expect(stored.count < body.count / 10)
        let copy = try #require(CachedResult(stored: stored))
        #expect(copy.body == body)
        #expect(copy.createdMilliseconds == 7)
        #expect(copy.freshMilliseconds == 9)
        #expect(CachedResult(stored: stored, limit: body.count - 1) == nil)
        #expect(CachedResult(stored: stored, limit: body.count) != nil)
        #expect(original.stored(compressAbove: body.count + 1).count > body.count)
        // What does not shrink stays as it is.
        var random = SystemRandomNumberGenerator()
        let noise = (0..<8192).map { _ in UInt8.random(in: 0...255, using: &random) }
        let kept = CachedResult(ScoringResponse(body: noise)).stored(compressAbove: 1)
        #expect(CachedResult(stored: kept)?.body == noise)
    }

    @Test func `age is counted from its making, and never below zero`() {
        let made = CachedResult(ScoringResponse(), createdMilliseconds: 1000, fresh: .seconds(1))
        #expect(made.ageMilliseconds(now: 3500) == 2500)
        #expect(made.ageMilliseconds(now: 10) == 0)
    }

    @Test func `every damaged byte makes it a miss`() {
        let stored = result("hello").stored()
        for index in stored.indices {
            var damaged = stored
            damaged[index] ^= 1
            #expect(CachedResult(stored: damaged) == nil, "byte \(index)")
        }
        for count in stored.indices { #expect(CachedResult(stored: Array(stored[..<count])) == nil) }
        #expect(CachedResult(stored: Array("OK".utf8)) == nil)
    }
}

@Suite struct MemoryCacheTests {
    @Test func `the least recently used leaves first`() async throws {
        try await onTheLoop {
            let cache = MemoryCache(entryLimit: 2, byteLimit: 1 << 20)
            cache.store(result("a"), key: key("a"), label: label, expires: 100)
            cache.store(result("b"), key: key("b"), label: label, expires: 100)
            #expect(cache.result(for: key("a"), now: 0) != nil)
            cache.store(result("c"), key: key("c"), label: label, expires: 100)
            #expect(cache.result(for: key("b"), now: 0) == nil)
            #expect(cache.result(for: key("a"), now: 0) != nil)
            #expect(cache.result(for: key("c"), now: 0) != nil)
            #expect(cache.count == 2)
            #expect(cache.evictions == 1)
        }
    }

    @Test func `bytes are limited, and time`() async throws {
        try await onTheLoop {
            let size = result("x").byteCount
            let cache = MemoryCache(entryLimit: 100, byteLimit: 2 * size)
            for name in ["a", "b", "c"] { cache.store(result("x"), key: key(name), label: label, expires: 50) }
            #expect(cache.count == 2)
            #expect(cache.byteCount == 2 * size)
            #expect(cache.result(for: key("c"), now: 49) != nil)
            #expect(cache.result(for: key("c"), now: 50) == nil)
            #expect(cache.count == 1)
            cache.removeAll()
            #expect(cache.byteCount == 0)
        }
    }

    @Test func `another spelling leads to the same result and leaves with it`() async throws {
        try await onTheLoop {
            let cache = MemoryCache(entryLimit: 1, byteLimit: 1 << 20)
            cache.store(result("a"), key: key("a"), label: label, expires: 100)
            cache.add(alias: key("a2"), to: key("a"))
            #expect(cache.result(for: key("a2"), now: 0)?.body == Array("a".utf8))
            cache.store(result("b"), key: key("b"), label: label, expires: 100)
            #expect(cache.result(for: key("a2"), now: 0) == nil)
        }
    }
}

@Suite struct CircuitBreakerTests {
    @Test func `it opens after three failures in a row and tries again after a pause`() {
        var breaker = CircuitBreaker()
        let pause = CircuitBreaker.pause.wholeNanoseconds
        let opened = [0, 0, 10].map { breaker.failed(now: $0) }
        #expect(opened == [false, false, true])
        // After the pause one try at a time.
        let allowed = [10 + pause - 1, 10 + pause, 10 + pause, 11 + pause].map { breaker.allows(now: $0) }
        #expect(allowed == [false, true, false, false])
        let openedAgain = breaker.failed(now: 10 + pause)
        #expect(!openedAgain)
        let tried = breaker.allows(now: 11 + 2 * pause)
        let closed = breaker.succeeded()
        let closedAgain = breaker.succeeded()
        #expect(tried && closed && !closedAgain)
        let first = breaker.failed(now: 3 * pause)
        let stillAllowed = breaker.allows(now: 3 * pause)
        #expect(!first && stillAllowed)
    }
}

/// Answers what it is told, after its gate opens, and counts.
@EventLoop
private final class CountingScorer: Scorer {
    let identity: InputIdentity?
    let gate = Gate()
    var calls = 0
    var status = 200

    init(kind: InputKind = .bytes) { identity = InputIdentity(kind: kind, version: key("v1")) }

    func prepare(_ invocation: Invocation) async throws(InvocationFailure) -> InputIdentity {
        InputIdentity(kind: .bytes, version: key("v1"))
    }

    func score(_ invocation: Invocation) -> Eventual<InvocationOutcome> {
        calls += 1
        return .awaiting { [self] in
            await gate.wait()
            return .completed(ScoringResponse(status: status, body: Array("r\(calls)".utf8)))
        }
    }
}

@EventLoop
private func invocation(_ body: String, headers: String = "") -> Invocation {
    var random = RandomBytes()
    let bytes = Array("POST /x HTTP/1.1\r\nHost: h\r\n\(headers)\r\n".utf8)
    var head: RequestHead?
    if case .complete(let parsed, _) = RequestParser.parse(bytes.span) { head = parsed }
    return Invocation(
        id: InvocationID(from: &random), functionName: "F",
        event: TriggerEvent(trigger: "http", body: Array(body.utf8), head: head),
        stages: StageTimes(entering: .bind, at: 0))
}

@EventLoop
private func pipeline(
    _ scorer: any Scorer, usesCache: Bool? = nil, _ change: (inout InferenceCacheLimits) -> Void = { _ in }
) -> ScoringPipeline {
    var limits = InferenceCacheLimits(
        timeToLive: .seconds(60), entryCount: 10, memoryByteCount: 1 << 20, entryByteCount: 1000,
        redisTimeout: .milliseconds(5),
        keyPrefix: "t:")
    change(&limits)
    return ScoringPipeline(
        scorer: scorer, cache: InferenceCache(limits: limits, redis: nil, log: .discarding), usesCache: usesCache,
        functionName: "F")
}

@Suite struct ScoringPipelineTests {
    @EventLoop
    private func body(_ pipeline: ScoringPipeline, _ invocation: Invocation) async -> String {
        guard case .completed(let response) = await pipeline.score(invocation).value() else { return "failed" }
        return String(decoding: response.body, as: UTF8.self)
    }

    @Test func `equal requests at one time are computed once`() async throws {
        try await onTheLoop {
            let scorer = CountingScorer()
            let pipeline = pipeline(scorer)
            let invocations = (0..<5).map { _ in invocation("same") }
            let done = Gate()
            let texts = Texts()
            for each in invocations {
                loopTask {
                    texts.list.append(await body(pipeline, each))
                    if texts.list.count == 5 { done.open() }
                }
            }
            scorer.gate.open()
            await done.wait()
            #expect(scorer.calls == 1)
            #expect(Set(texts.list) == ["r1"])
            #expect(invocations.count { $0.cache == .miss } == 1)
            #expect(invocations.count { $0.cache == .hit } == 4)
        }
    }

    @Test func `a hit needs no waiting`() async throws {
        try await onTheLoop {
            let scorer = CountingScorer()
            scorer.gate.open()
            let pipeline = pipeline(scorer)
            _ = await body(pipeline, invocation("a"))
            guard case .now = pipeline.score(invocation("a")) else {
                Issue.record("a hit was answered later")
                return
            }
            #expect(scorer.calls == 1)
        }
    }

    @Test func `failures and bypassed requests are not kept`() async throws {
        try await onTheLoop {
            let scorer = CountingScorer()
            scorer.gate.open()
            let pipeline = pipeline(scorer)
            scorer.status = 500
            _ = await body(pipeline, invocation("a"))
            scorer.status = 200
            _ = await body(pipeline, invocation("a"))
            #expect(scorer.calls == 2)
            let bypassed = invocation("a", headers: "Cache-Control: no-cache\r\n")
            _ = await body(pipeline, bypassed)
            #expect(bypassed.cache == .bypass)
            #expect(scorer.calls == 3)
        }
    }

    @Test(arguments: [(InputKind.json, 1), (.bytes, 2), (.request, 2), (.headers, 2)])
    func `equal JSON is one input only where the script says JSON`(kind: InputKind, calls: Int) async throws {
        let counted = try await onTheLoop {
            let scorer = CountingScorer(kind: kind)
            scorer.gate.open()
            let pipeline = pipeline(scorer)
            _ = await body(pipeline, invocation(#"{"a":1,"b":2}"#))
            _ = await body(pipeline, invocation(#"{ "b": 2, "a": 1 }"#))
            return scorer.calls
        }
        #expect(counted == calls)
    }

    @Test func `an old result is given while one new is computed`() async throws {
        try await onTheLoop {
            let scorer = CountingScorer()
            scorer.gate.open()
            let pipeline = pipeline(scorer) {
                $0.timeToLive = .milliseconds(30)
                $0.jitter = 0
                $0.staleWhileRevalidate = .seconds(60)
            }
            _ = await body(pipeline, invocation("a"))
            await sleep(for: .milliseconds(60))
            let old = invocation("a")
            let text = await body(pipeline, old)
            #expect(text == "r1")
            #expect(old.cache == .stale)
            await sleep(for: .milliseconds(2))
            #expect(scorer.calls == 2)
            // The new one may be old again by now, on a busy machine; then it is renewed again.
            let next = await body(pipeline, invocation("a"))
            #expect(next != "r1")
            #expect(pipeline.tally.counts.stale >= 1)
        }
    }

    @Test func `a user's error is kept when told so, for its own time`() async throws {
        try await onTheLoop {
            let scorer = CountingScorer()
            scorer.gate.open()
            scorer.status = 422
            let pipeline = pipeline(scorer) { $0.errorTimeToLive = .milliseconds(80) }
            _ = await body(pipeline, invocation("a"))
            let again = invocation("a")
            _ = await body(pipeline, again)
            #expect(again.cache == .hit)
            #expect(scorer.calls == 1)
            await sleep(for: .milliseconds(120))
            _ = await body(pipeline, invocation("a"))
            #expect(scorer.calls == 2)
            scorer.status = 503
            _ = await body(pipeline, invocation("b"))
            _ = await body(pipeline, invocation("b"))
            #expect(scorer.calls == 4)
        }
    }

    @Test func `times to live differ by chance, within their bounds`() async throws {
        try await onTheLoop {
            let pipeline = pipeline(CountingScorer()) { $0.jitter = 0.5 }
            let times = (0..<200).compactMap { _ in pipeline.cache?.freshTime().wholeMilliseconds }
            #expect(times.allSatisfy { (30_000...60_000).contains($0) })
            #expect(Set(times).count > 100)
        }
    }

    @Test func `keys tell function, bundle and version apart`() async throws {
        let one = CacheKeyPrefix(keyPrefix: "a:", functionName: "F", version: key("v1"))
        let other = CacheKeyPrefix(keyPrefix: "a:", functionName: "G", version: key("v1"))
        let newer = CacheKeyPrefix(keyPrefix: "a:", functionName: "F", version: key("v2"))
        let input = Array("x".utf8)
        #expect(Set([one, other, newer].map { $0.digest(of: input) }).count == 3)
        let name = String(decoding: one.key(one.digest(of: input)).name, as: UTF8.self)
        #expect(name == "a:2:F:\(key("v1").description.prefix(16)):\(one.digest(of: input))")
        #expect(CacheKeyPrefix.pattern(keyPrefix: "a*:", functionName: "F") == #"a\*:2:F:*"#)
    }

    @Test func `a function that says no has no cache`() async throws {
        try await onTheLoop {
            let scorer = CountingScorer()
            scorer.gate.open()
            let pipeline = pipeline(scorer, usesCache: false)
            let first = invocation("a")
            _ = await body(pipeline, first)
            _ = await body(pipeline, invocation("a"))
            #expect(first.cache == nil)
            #expect(scorer.calls == 2)
        }
    }
}

@EventLoop private final class Texts { var list: [String] = [] }
