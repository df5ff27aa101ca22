/// The phases of a cold start and the progress of its layers, as they are told and asked for.
internal import Diagnostics
internal import EventLoops
internal import Images
internal import JSONText

/// How far a cold start is.
struct ColdStartReport {
    /// Phases that have ended.
    private(set) var phases: [(name: String, milliseconds: Double)] = []
    /// The running one; the last one when it is over.
    private(set) var phase = "settings"
    private(set) var layers: [LayerProgress] = []
    private var since = monotonicNanoseconds()
    private var hasEnded = false
    private var toldAt: UInt64 = 0

    /// How often a layer's bytes are told.
    private static let interval: UInt64 = 500_000_000

    /// Begins a phase.
    mutating func enter(_ name: String, _ log: EventLog) {
        end()
        hasEnded = false
        phase = name
        log(HostEvent(.coldStart, .debug, "cold start: \(name)", [("phase", .text(name))]))
    }

    /// Ends the running phase.
    mutating func end() {
        guard !hasEnded else { return }
        hasEnded = true
        let now = monotonicNanoseconds()
        phases.append((phase, Double(now - since) / 1e6))
        since = now
    }

    /// A phase that somebody else has timed.
    mutating func add(_ name: String, _ milliseconds: Double) { phases.append((name, milliseconds)) }

    mutating func take(_ event: PullEvent, _ log: EventLog) {
        switch event {
        case .phase(let name): enter(name, log)
        case .layers(let all):
            layers = all
            for layer in all { tell(layer, log) }
        case .layer(let index, let layer):
            let hasChanged = layers[index].state != layer.state
            layers[index] = layer
            let now = monotonicNanoseconds()
            guard hasChanged || now - toldAt > Self.interval else { return }
            toldAt = now
            tell(layer, log)
        case .digest: break
        }
    }

    private func tell(_ layer: LayerProgress, _ log: EventLog) {
        var fields: [(String, HostEvent.Value)] = [
            ("layer", .text(layer.digest.short)), ("state", .text(layer.state.rawValue)),
            ("bytes", .integer(layer.received)), ("size", .integer(layer.size)),
        ]
        if let role = layer.role { fields.append(("role", .text(role.rawValue))) }
        if layer.state == .downloading, layer.startedAt > 0, layer.received > 0 {
            let seconds = max(0.001, Double(monotonicNanoseconds() - layer.startedAt) / 1e9)
            let rate = Double(layer.received) / seconds
            fields.append(("bytes_per_second", .integer(Int(rate))))
            fields.append(("seconds_left", .number(Double(layer.size - layer.received) / rate)))
        }
        let isNews = [.done, .cached].contains(layer.state)
        log(HostEvent(.imageProgress, isNews ? .information : .debug, "image layer", fields))
    }

    /// The report for people: the running phase, then the layers.
    var text: String {
        var text = "cold start: \(phase)\n"
        for layer in layers {
            text += "  \(layer.digest.short) \(layer.state.rawValue) \(layer.received)/\(layer.size)\n"
        }
        return text
    }

    func write(to writer: inout JSONWriter) {
        writer.member("phase", phase)
        writer.name("phases")
        writer.beginArray()
        for phase in phases {
            writer.beginObject()
            writer.member("name", phase.name)
            writer.name("milliseconds")
            writer.number(phase.milliseconds)
            writer.endObject()
        }
        writer.endArray()
        writer.name("layers")
        writer.beginArray()
        for layer in layers {
            writer.beginObject()
            writer.member("digest", "\(layer.digest)")
            writer.member("state", layer.state.rawValue)
            writer.member("received", layer.received)
            writer.member("size", layer.size)
            writer.endObject()
        }
        writer.endArray()
    }
}
