/// The terminal's view of the event stream: a line per record, and under load one line per second.
public import Diagnostics
internal import EventLoops

/// How records are shown.
public enum OutputFormat: String, Sendable, CaseIterable {
    /// A line per record, coloured on a terminal.
    case compact
    /// The same without colour and with everything spelled out.
    case plain
    /// NDJSON.
    case json
}

// SAFETY: receives records on the loop only, which is asserted.
/// Formats records and hands them to a writer.
public final class ConsoleSink: EventSink, @unchecked Sendable {
    private let writer: LineWriter
    private let format: OutputFormat
    private let minimumLevel: EventLevel
    private var levels = LogLevels()
    private var showsSuccesses: Bool
    private let usesColor: Bool
    private var timestamp = Timestamp()
    private var second = 0
    private var shownInSecond = 0
    private var heldBack = 0
    private var timer: LoopTimer?

    /// Lines about successful invocations shown per second; the rest is counted.
    public static let invocationLinesPerSecond = 50

    public init(writer: LineWriter, format: OutputFormat, minimumLevel: EventLevel, usesColor: Bool) {
        self.writer = writer
        self.format = format
        self.minimumLevel = minimumLevel
        showsSuccesses = minimumLevel <= .information
        self.usesColor = usesColor
    }

    public func receive(_ event: HostEvent) {
        EventLoop.assumeIsolated { self.show(event) }
    }

    public func wantsSuccess() -> Bool {
        format == .json || showsSuccesses && EventLoop.assumeIsolated(self) { !$0.isHeldBack() }
    }

    /// host.json's levels come before ``minimumLevel``, as in the Functions CLI.
    public func use(_ levels: LogLevels) {
        EventLoop.assumeIsolated {
            self.levels = levels
            self.showsSuccesses = levels.mayShow(.information, below: "Function") ?? (self.minimumLevel <= .information)
        }
    }

    @EventLoop
    private func show(_ event: HostEvent) {
        if format == .json {
            var line: [UInt8] = []
            event.appendJSONLine(timestamp: timestamp.rfc3339(), to: &line)
            writer.append(line)
            return
        }
        guard levels.shows(event.level, in: event.category) ?? (event.level >= minimumLevel) else { return }
        switch event.content {
        case .invocationCompleted(let record):
            write(line(record), event.level)
        case .record(let message, let fields): write(line(message, fields), event.level)
        }
    }

    /// Counts the lines of this second; past the limit they are summed up when the second is over.
    @EventLoop
    private func isHeldBack() -> Bool {
        let now = Int(monotonicNanoseconds() / 1_000_000_000)
        if now != second {
            second = now
            shownInSecond = 0
        }
        shownInSecond += 1
        guard shownInSecond > Self.invocationLinesPerSecond else { return false }
        if heldBack == 0 {
            if timer == nil { timer = LoopTimer { [unowned self] in sumUp() } }
            timer?.start(after: .seconds(1))
        }
        heldBack += 1
        return true
    }

    @EventLoop
    private func sumUp() {
        guard heldBack > 0 else { return }
        write("… \(heldBack) more invocations succeeded", .information)
        heldBack = 0
    }

    /// Shows what was held back.
    @EventLoop
    public func finish() { if format != .json { sumUp() } }

    private func line(_ record: InvocationRecord) -> String {
        var text = "\(record.functionName) "
        text +=
            record.status > 0 && record.source == nil ? "\(record.status)" : record.succeeded ? "succeeded" : "failed"
        text += " \(milliseconds(record.stages.total)) ms"
        if let cache = record.cache { text += " \(cache.rawValue)" }
        if let source = record.source { text += " \(source)" }
        if record.attempt > 1 { text += " attempt \(record.attempt)" }
        if let parent = record.parent { text += " (from \(parent))" }
        if let failure = record.failure { text += "  \(failure)  (Id=\(record.id))" }
        if format == .plain {
            for stage in Stage.allCases where record.stages[stage] > 0 {
                text += " \(stage.name)=\(milliseconds(record.stages[stage]))"
            }
        }
        return text
    }

    private func line(_ message: String, _ fields: [(String, HostEvent.Value)]) -> String {
        var text = message
        for (name, value) in fields {
            // The function is what a reader looks for first.
            if name == "function", case .text(let function) = value {
                text = "\(function): \(text)"
            } else if format == .plain || !["invocation_id", "source", "code"].contains(name) {
                text += " \(name)=\(describe(value))"
            }
        }
        return text
    }

    private func describe(_ value: HostEvent.Value) -> String {
        switch value {
        case .text(let text): text
        case .integer(let number): "\(number)"
        case .number(let number): "\((number * 1000).rounded() / 1000)"
        case .flag(let truth): "\(truth)"
        case .json(let json): String(decoding: json, as: UTF8.self)
        }
    }

    private func milliseconds(_ nanoseconds: UInt64) -> String {
        let value = Double(nanoseconds) / 1e6
        return value >= 100 ? "\(Int(value.rounded()))" : "\((value * 100).rounded() / 100)"
    }

    /// All lines of a record go out together.
    private func write(_ text: String, _ level: EventLevel) {
        let stamp = timestamp.rfc3339()
        var bytes: [UInt8] = []
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            let clean = String(line.unicodeScalars.filter { $0.value >= 0x20 || $0 == "\t" })
            bytes += "[\(stamp)] \(usesColor ? color(clean, level) : clean)\n".utf8
        }
        writer.append(bytes)
    }

    private func color(_ text: String, _ level: EventLevel) -> String {
        switch level {
        case .error, .critical: "\u{1B}[31m\(text)\u{1B}[0m"
        case .warning: "\u{1B}[33m\(text)\u{1B}[0m"
        case .debug, .trace: "\u{1B}[90m\(text)\u{1B}[0m"
        case .information: text
        }
    }
}
