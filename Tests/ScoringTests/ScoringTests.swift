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

private func key(_ text: String) -> SHA256Digest { SHA256Digest(of: Array(text.utf8)) }

@Suite struct CachedResultTests {
    @Test func `a stored result is read back`() throws {
        var fields = HTTPFields()
        fields.add("X-A", "b")
        let original = CachedResult(
            ScoringResponse(status: 200, contentType: "text/x", fields: fields, body: [1, 2, 3], runNanoseconds: 99))
        let copy = try #require(CachedResult(stored: original.stored))
        #expect(copy.status == 200)
        #expect(copy.contentType == "text/x")
        #expect(copy.fields == fields.bytes)
        #expect(copy.body == [1, 2, 3])
        #expect(copy.runNanoseconds == 99)
    }

    @Test func `every damaged byte makes it a miss`() {
        let stored = result("hello").stored
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
            cache.store(result("a"), key: key("a"), expires: 100)
            cache.store(result("b"), key: key("b"), expires: 100)
            #expect(cache.result(for: key("a"), now: 0) != nil)
            cache.store(result("c"), key: key("c"), expires: 100)
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
            for name in ["a", "b", "c"] { cache.store(result("x"), key: key(name), expires: 50) }
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
            cache.store(result("a"), key: key("a"), expires: 100)
            cache.add(alias: key("a2"), to: key("a"))
            #expect(cache.result(for: key("a2"), now: 0)?.body == Array("a".utf8))
            cache.store(result("b"), key: key("b"), expires: 100)
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
        #expect(!breaker.allows(now: 10 + pause - 1))
        #expect(breaker.allows(now: 10 + pause))
        let openedAgain = breaker.failed(now: 10 + pause)
        #expect(!openedAgain)
        #expect(!breaker.allows(now: 11 + pause))
        breaker.succeeded()
        let first = breaker.failed(now: 3 * pause)
        #expect(!first)
        #expect(breaker.allows(now: 3 * pause))
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
private func pipeline(_ scorer: any Scorer, usesCache: Bool? = nil) -> ScoringPipeline {
    let limits = InferenceCacheLimits(
        timeToLive: .seconds(60), entryCount: 10, memoryByteCount: 1 << 20, entryByteCount: 1000,
        redisTimeout: .milliseconds(5),
        keyPrefix: "t:")
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
