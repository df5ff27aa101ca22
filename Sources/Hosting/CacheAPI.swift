/// The admin API's view of the inference cache, below `/admin/cache`: what the command line asks a running host.
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages
internal import HTTPServers
internal import Invocations
internal import JSONText
internal import RedisClients
internal import Scoring

/// Numbers, listings, explanations, flushing.
@EventLoop
final class CacheAPI {
    private unowned let host: FunctionHost
    private static let prefix = Array("/admin/cache".utf8)
    private static let defaultListing = 100

    init(host: FunctionHost) { self.host = host }

    /// Answers what is about the cache; nil for everything else.
    func respond(to request: HTTPRequest, _ admin: AdminAPI) -> Eventual<HTTPResponse>? {
        guard request.head.path.starts(with: Self.prefix) else { return nil }
        if let refusal = admin.refusal(request.head) { return .now(refusal) }
        guard let cache = host.cache else {
            return .now(
                errorResponse(
                    404, code: "AN6013", "this app has no inference cache",
                    remedy: "add \"inferenceCache\": {} to host.json, or set RedisConnectionString"))
        }
        return .awaiting { [self] in
            do {
                return try await answer(request, cache)
            } catch let error as any HostError {
                let status = (error as? InvocationFailure)?.status ?? 503
                return errorResponse(status, code: error.code, error.message, remedy: error.remedy)
            } catch {
                return HTTPResponse(status: 500)
            }
        }
    }

    private func answer(_ request: HTTPRequest, _ cache: InferenceCache) async throws -> HTTPResponse {
        let query = PercentCoding.query(request.head.query)
        let value = { (name: String) in query.last { $0.name == name }?.value }
        let path = String(decoding: request.head.path.dropFirst(Self.prefix.count), as: UTF8.self)
        let function = value("function")
        if let function, runtime(function) == nil {
            let names = host.runtimes.map(\.metadata.name)
            return errorResponse(
                404, code: "AN2013", "there is no function '\(function)'",
                remedy: nearest(to: function, among: names).map { "did you mean '\($0)'?" })
        }
        let name = function.flatMap { runtime($0)?.metadata.name }
        switch (request.head.method, path) {
        case ("GET", ""): return .json(200, stats(cache))
        case ("DELETE", ""): return .json(200, Array("{\"count\":\(try await cache.flush(function: name))}".utf8))
        case ("GET", "/keys"):
            let limit = min(max(1, value("limit").flatMap { Int($0) } ?? Self.defaultListing), InferenceCache.listLimit)
            return .json(200, listing(try await cache.list(function: name, limit: limit)))
        case ("GET", "/entry"):
            guard let entry = try await cache.entry(named: value("key") ?? "") else {
                return errorResponse(404, code: "AN6014", "no result is kept under '\(value("key") ?? "")'")
            }
            return .json(200, document(entry))
        case ("POST", "/explain"):
            guard let runtime = function.flatMap(runtime) else { return HTTPResponse(status: 400) }
            return try await explain(runtime, request.body)
        case ("POST", "/verify"):
            guard let runtime = function.flatMap(runtime) else { return HTTPResponse(status: 400) }
            return try await verify(runtime, request.body)
        default: return HTTPResponse(status: 404)
        }
    }

    private func runtime(_ name: String) -> FunctionRuntime? {
        host.runtimes.first { $0.metadata.name.lowercased() == name.lowercased() }
    }

    private func stats(_ cache: InferenceCache) -> [UInt8] {
        jsonObject { writer in
            writer.member("entries", cache.entryCount)
            writer.member("bytes", cache.byteCount)
            writer.member("evictions", cache.evictionCount)
            writer.name("redis")
            if cache.hasRedis {
                writer.beginObject()
                writer.member("address", host.cacheAddress ?? "")
                writer.member("connected", cache.isRedisConnected)
                writer.member("state", cache.redisState)
                if let problem = cache.redisProblem {
                    writer.member("code", problem.code)
                    writer.member("problem", problem.message)
                    if let remedy = problem.remedy { writer.member("try", remedy) }
                }
                writer.endObject()
            } else {
                writer.null()
            }
            writer.name("functions")
            writer.beginArray()
            for (name, counts) in cache.countsByFunction {
                writer.beginObject()
                writer.member("name", name)
                writer.member("hits", counts.hits)
                writer.member("misses", counts.misses)
                writer.member("stale", counts.stale)
                writer.member("bypasses", counts.bypasses)
                writer.member("shared", counts.shared)
                writer.member("redisHits", counts.redisHits)
                writer.member("redisErrors", counts.redisErrors)
                writer.member("redisBytesRead", counts.redisBytesRead)
                writer.member("redisBytesWritten", counts.redisBytesWritten)
                writer.name("savedSeconds")
                writer.number(Double(counts.savedNanoseconds) / 1e9)
                writer.endObject()
            }
            writer.endArray()
        }
    }

    private func listing(_ list: [CacheListing]) -> [UInt8] {
        jsonObject { writer in
            writer.name("keys")
            writer.beginArray()
            for one in list {
                writer.beginObject()
                writer.member("key", one.name)
                writer.member("memory", one.isInMemory)
                writer.member("redis", one.isInRedis)
                writer.member("bytes", one.byteCount)
                if let seconds = one.secondsLeft { writer.member("secondsLeft", seconds) }
                writer.endObject()
            }
            writer.endArray()
        }
    }

    private func document(_ entry: CacheEntry) -> [UInt8] {
        jsonObject { writer in
            writer.member("key", entry.name)
            writer.member("from", entry.isFromMemory ? "memory" : "redis")
            writer.member("status", entry.status)
            if let type = entry.contentType { writer.member("contentType", type) }
            writer.member("ageSeconds", entry.ageSeconds)
            writer.member("freshSeconds", entry.freshSeconds)
            writer.name("runMilliseconds")
            writer.number(Double(entry.runNanoseconds) / 1e6)
            writer.member("bytes", entry.body.count)
            writer.member("body", String(decoding: entry.body, as: UTF8.self))
        }
    }

    private func event(_ runtime: FunctionRuntime, _ body: [UInt8]) async throws(InvocationFailure) -> TriggerEvent {
        TriggerEvent(trigger: "admin", body: try await runtime.pipeline.input(of: body))
    }

    private func explain(_ runtime: FunctionRuntime, _ body: [UInt8]) async throws(InvocationFailure) -> HTTPResponse {
        guard let parts = try await runtime.pipeline.explain(try await event(runtime, body)) else {
            return off(runtime)
        }
        return .json(
            200,
            jsonObject { writer in
                writer.member("key", parts.name)
                writer.member("versionTag", parts.versionTag)
                writer.member("function", parts.functionName)
                writer.member("bundle", "\(parts.bundle)")
                writer.member("input", "\(parts.kind)")
                writer.member("cacheable", parts.isCacheable)
                writer.member("memory", parts.isInMemory)
                writer.member("redis", parts.isInRedis)
                if let canonical = parts.canonical {
                    writer.member("canonical", String(decoding: canonical, as: UTF8.self))
                }
            })
    }

    private func verify(_ runtime: FunctionRuntime, _ body: [UInt8]) async throws(InvocationFailure) -> HTTPResponse {
        let event = try await event(runtime, body)
        var random = RandomBytes()
        let invocation = Invocation(
            id: InvocationID(from: &random), functionName: runtime.metadata.name, event: event,
            stages: StageTimes(entering: .workerWait, at: monotonicNanoseconds()))
        guard let (kept, fresh) = try await runtime.pipeline.verify(event, invocation) else {
            return errorResponse(404, code: "AN6014", "no result is kept for this input")
        }
        return .json(
            200,
            jsonObject { writer in
                writer.member("key", kept.name)
                writer.member("same", kept.status == fresh.status && kept.body == fresh.body)
                writer.member("ageSeconds", kept.ageSeconds)
                writer.member("kept", String(decoding: kept.body, as: UTF8.self))
                writer.member("fresh", String(decoding: fresh.body, as: UTF8.self))
                writer.member("keptStatus", kept.status)
                writer.member("freshStatus", fresh.status)
            })
    }

    private func off(_ runtime: FunctionRuntime) -> HTTPResponse {
        errorResponse(
            404, code: "AN6013", "the function '\(runtime.metadata.name)' has no inference cache",
            remedy: "\"inferenceCache\": true in its function.json")
    }
}
