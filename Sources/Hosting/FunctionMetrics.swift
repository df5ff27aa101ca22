/// Counts and times of one function.
internal import Diagnostics
public import EventLoops

/// Updated at the end of each invocation.
@EventLoop
public final class FunctionMetrics {
    public private(set) var succeeded: UInt64 = 0
    public private(set) var failed: UInt64 = 0
    public internal(set) var inFlight = 0
    private var duration = Histogram()
    private var stages: InlineArray<8, Histogram> = .init(repeating: Histogram())

    func record(_ times: StageTimes, succeeded isSuccess: Bool) {
        if isSuccess { succeeded += 1 } else { failed += 1 }
        duration.observe(times.total)
        times.forEachStage { stages[$0.rawValue].observe($1) }
    }

    func appendPrometheus(function: String, trigger: String, to parts: inout PrometheusText) {
        let label = "function=\"\(function)\""
        parts.counter("andiron_invocations_total", "\(label),trigger=\"\(trigger)\",outcome=\"succeeded\"", succeeded)
        parts.counter("andiron_invocations_total", "\(label),trigger=\"\(trigger)\",outcome=\"failed\"", failed)
        parts.gauge("andiron_invocations_in_flight", label, Double(inFlight))
        parts.histogram("andiron_invocation_duration_seconds", label, duration)
        for stage in Stage.allCases where stages[stage.rawValue].count > 0 {
            parts.histogram(
                "andiron_stage_duration_seconds", "\(label),stage=\"\(stage.name)\"", stages[stage.rawValue])
        }
    }
}

/// The Prometheus text format: one family after the other, each with its type.
struct PrometheusText {
    private var families: [(name: String, type: String, lines: String)] = []

    mutating func counter(_ name: String, _ labels: String, _ value: UInt64) {
        append(name, "counter", "\(name)\(braces(labels)) \(value)\n")
    }

    mutating func gauge(_ name: String, _ labels: String, _ value: Double) {
        append(name, "gauge", "\(name)\(braces(labels)) \(value)\n")
    }

    mutating func histogram(_ name: String, _ labels: String, _ histogram: Histogram) {
        var text = ""
        histogram.appendPrometheus(name: name, labels: labels, to: &text)
        append(name, "histogram", text)
    }

    private func braces(_ labels: String) -> String { labels.isEmpty ? "" : "{\(labels)}" }

    private mutating func append(_ name: String, _ type: String, _ lines: String) {
        if let index = families.firstIndex(where: { $0.name == name }) {
            families[index].lines += lines
        } else {
            families.append((name, type, lines))
        }
    }

    var text: String { families.map { "# TYPE \($0.name) \($0.type)\n\($0.lines)" }.joined() }
}
