/// The inference cache's numbers in Prometheus text.
internal import Diagnostics
internal import EventLoops
internal import Scoring

extension InferenceCache {
    func appendPrometheus(to text: inout PrometheusText) {
        for (name, counts) in countsByFunction {
            let function = "function=\"\(name)\""
            for (result, count) in [
                ("hit", counts.hits), ("miss", counts.misses), ("bypass", counts.bypasses), ("stale", counts.stale),
            ] {
                text.counter("andiron_cache_requests_total", "\(function),result=\"\(result)\"", UInt64(count))
            }
            text.gauge("andiron_cache_saved_seconds", function, Double(counts.savedNanoseconds) / 1e9)
            text.counter("andiron_cache_shared_total", function, UInt64(counts.shared))
            text.counter("andiron_cache_redis_hits_total", function, UInt64(counts.redisHits))
            text.counter("andiron_cache_redis_errors_total", function, UInt64(counts.redisErrors))
            for (direction, bytes) in [("read", counts.redisBytesRead), ("written", counts.redisBytesWritten)] {
                text.counter(
                    "andiron_cache_redis_bytes_total", "\(function),direction=\"\(direction)\"", UInt64(bytes))
            }
        }
        text.counter("andiron_cache_evictions_total", "", UInt64(evictionCount))
        text.gauge("andiron_cache_entries", "", Double(entryCount))
        text.gauge("andiron_cache_bytes", "", Double(byteCount))
        guard hasRedis else { return }
        text.gauge("andiron_cache_redis_connected", "", isRedisConnected ? 1 : 0)
        text.gauge("andiron_cache_redis_breaker_open", "", isBreakerOpen ? 1 : 0)
        text.counter("andiron_cache_redis_connections_total", "", UInt64(redisConnectionCount))
        text.counter("andiron_cache_redis_redirections_total", "", UInt64(redisRedirectionCount))
    }
}
