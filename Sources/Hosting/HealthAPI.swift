/// `/healthz`, `/livez`, `/readyz`, `/metrics`, `/openapi.json`: for probes, Prometheus and clients.
internal import Triggers
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages
internal import HTTPServers
internal import Invocations
internal import JSONText
internal import RedisClients
internal import Scoring
internal import Workers

/// Answers without a key; functions cannot take these paths.
@EventLoop
final class HealthAPI {
    private unowned let host: FunctionHost

    init(host: FunctionHost) { self.host = host }

    func respond(to request: HTTPRequest) -> HTTPResponse? {
        switch String(decoding: request.head.path, as: UTF8.self) {
        case "/healthz", "/livez": .text(200, "ok\n")
        case "/readyz": ready(request)
        case "/metrics":
            HTTPResponse(
                status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8", body: Array(metrics().utf8))
        case "/openapi.json": .json(200, openAPIDocument(host))
        default: nil
        }
    }

    private var isReady: Bool { host.state == .running && host.drainState == .disabled }

    private func ready(_ request: HTTPRequest) -> HTTPResponse {
        let isVerbose = PercentCoding.query(request.head.query).contains { $0.name == "verbose" }
        guard isVerbose else {
            return .text(isReady ? 200 : 503, isReady ? "ok\n" : "not ready: \(host.state.rawValue)\n")
        }
        var text = "\(isReady ? "[+]" : "[-]") host \(host.state.rawValue), drain \(host.drainState.rawValue)\n"
        if let imageApp = host.imageApp, !isReady { text += "[-] " + imageApp.coldStart.text }
        for broken in host.app.broken {
            text += "[-] function \(broken.name): \(broken.problems.first?.message ?? "")\n"
        }
        for runtime in host.runtimes {
            let status = runtime.python?.pool?.status
            let failure = runtime.python?.loadFailure?.message ?? status?.failure
            if let trouble = host.listeners.listener(of: runtime.metadata.name)?.failure {
                text += "[-] trigger of \(runtime.metadata.name): \(trouble.message)\n"
            }
            if let failure {
                text += "[-] function \(runtime.metadata.name): \(failure)\n"
            } else if let status {
                text +=
                    "[\(status.ready > 0 ? "+" : " ")] function \(runtime.metadata.name): \(status.ready) workers ready, \(status.starting) starting, \(status.queued) calls waiting\n"
            } else {
                text += "[\(runtime.python == nil ? "+" : " ")] function \(runtime.metadata.name)\n"
            }
        }
        if let cache = host.cache, cache.hasRedis {
            if let problem = cache.redisProblem {
                text += "[-] redis: \(problem.message) (requests go on without it; \(cache.redisState))\n"
            } else {
                text += cache.isRedisConnected ? "[+] redis: \(cache.redisState)\n" : "[ ] redis: connecting\n"
            }
        }
        return .text(isReady ? 200 : 503, text)
    }

    private func metrics() -> String {
        var text = PrometheusText()
        text.gauge("andiron_build_info", "version=\"\(host.options.version)\"", 1)
        text.gauge("andiron_uptime_seconds", "", Double(monotonicNanoseconds() - host.startedAt) / 1e9)
        for runtime in host.runtimes {
            let name = runtime.metadata.name
            runtime.metrics.appendPrometheus(function: name, trigger: runtime.metadata.triggerKind, to: &text)
            guard let pool = runtime.python?.pool else { continue }
            let status = pool.status
            for (state, count) in [("ready", status.ready), ("starting", status.starting), ("busy", status.busy)] {
                text.gauge("andiron_workers", "function=\"\(name)\",state=\"\(state)\"", Double(count))
            }
            text.gauge("andiron_worker_queue", "function=\"\(name)\"", Double(status.queued))
            text.counter("andiron_worker_restarts_total", "function=\"\(name)\"", UInt64(status.restarts))
            for phase in pool.coldStart.phases {
                text.gauge(
                    "andiron_cold_start_seconds", "function=\"\(name)\",phase=\"\(phase.name)\"",
                    phase.milliseconds / 1000)
            }
        }
        host.cache?.appendPrometheus(to: &text)
        return text.text
    }
}
