/// A pull on the terminal: a bar per layer, or plain lines where there is no terminal.
import Diagnostics
import EventLoops
import Glibc
import Images

/// Shows pulls: bars below everything else a terminal is told, or lines on standard error.
@EventLoop
final class PullDisplay {
    private let terminal: LineWriter?
    private let descriptor: Int32
    private var layers: [LayerProgress] = []
    private var shownAt: UInt64 = 0

    /// How often bars are drawn.
    private static let interval: UInt64 = 100_000_000

    /// - Parameters:
    ///   - terminal: writes to the terminal; nil where there is none.
    ///   - descriptor: the terminal, to be asked for its width.
    init(terminal: LineWriter?, descriptor: Int32 = 1) {
        self.terminal = terminal
        self.descriptor = descriptor
    }

    func show(_ event: PullEvent) {
        switch event {
        case .phase, .digest: break
        case .layers(let layers):
            self.layers = layers
            if terminal != nil {
                draw()
            } else {
                for layer in layers where layer.state != .waiting { line(layer) }
            }
        case .layer(let index, let layer):
            let changed = layers[index].state != layer.state
            layers[index] = layer
            if terminal == nil {
                if changed { line(layer) }
            } else if changed || monotonicNanoseconds() - shownAt > Self.interval {
                draw()
            }
        }
    }

    /// The pull is over, well or not: the bars stay as they are, and what comes next goes below them.
    func finish() {
        terminal?.setFooter([], leaving: layers.map(bar))
        layers = []
    }

    private func line(_ layer: LayerProgress) {
        let role = layer.role.map { " (\($0.rawValue))" } ?? ""
        complain("\(layer.digest.short): \(words(layer))\(role)")
    }

    private func words(_ layer: LayerProgress) -> String {
        switch layer.state {
        case .waiting: "Pulling fs layer"
        case .downloading: "Downloading \(byteCountText(layer.received)) / \(byteCountText(layer.size))"
        case .unpacking: "Extracting"
        case .done: "Pull complete, \(byteCountText(layer.size))"
        case .cached: "Already exists"
        case .skipped: "Skipped"
        }
    }

    private func draw() {
        shownAt = monotonicNanoseconds()
        terminal?.setFooter(layers.map(bar))
    }

    private func bar(_ layer: LayerProgress) -> String {
        let share = layer.size == 0 ? 1 : Double(layer.received) / Double(layer.size)
        let filled = min(24, Int(share * 24))
        let marks = String(repeating: "█", count: filled) + String(repeating: "░", count: 24 - filled)
        var line = "\(layer.digest.short) [\(marks)] \(words(layer))"
        if layer.state == .downloading, let (rate, left) = speed(layer) {
            line += "  \(byteCountText(rate))/s, \(left) s left"
        }
        var size = winsize()
        let isKnown = ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        return String(line.prefix(max(1, (isKnown ? Int(size.ws_col) : 80) - 1)))
    }

    private func speed(_ layer: LayerProgress) -> (bytesPerSecond: Int, secondsLeft: Int)? {
        let seconds = Double(monotonicNanoseconds() - layer.startedAt) / 1e9
        guard seconds > 0.2, layer.received > 0 else { return nil }
        let rate = Double(layer.received) / seconds
        return (Int(rate), Int(Double(layer.size - layer.received) / rate))
    }
}

/// `12.3 MB`.
func byteCountText(_ bytes: Int) -> String {
    var value = Double(bytes)
    var unit = 0
    let units = ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000, unit < units.count - 1 {
        value /= 1000
        unit += 1
    }
    let rounded = value >= 100 || unit == 0 ? "\(Int(value.rounded()))" : "\((value * 10).rounded() / 10)"
    return "\(rounded) \(units[unit])"
}
