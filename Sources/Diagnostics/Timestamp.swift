/// Wall-clock times as text, formatted at most once per second.
internal import Glibc

/// Keeps the text of the current second.
public struct Timestamp {
    private var second = 0
    private var prefix = ""
    private var dateHeader: [UInt8] = []

    public init() {}

    private mutating func update() -> Int {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        if now.tv_sec != second || prefix.isEmpty {
            second = now.tv_sec
            var parts = tm()
            var seconds = now.tv_sec
            gmtime_r(&seconds, &parts)
            prefix = Self.format(parts, "%Y-%m-%dT%H:%M:%S")
            dateHeader = Array(Self.format(parts, "%a, %d %b %Y %H:%M:%S GMT").utf8)
        }
        return now.tv_nsec / 1_000_000
    }

    private static func format(_ parts: tm, _ pattern: String) -> String {
        var parts = parts
        var buffer = [CChar](repeating: 0, count: 64)
        let length = strftime(&buffer, buffer.count, pattern, &parts)
        return String(decoding: buffer.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Now, as `2026-01-31T10:00:00.000Z`.
    public mutating func rfc3339() -> String {
        let milliseconds = update()
        let digits = "\(milliseconds)"
        return prefix + "." + String(repeating: "0", count: 3 - digits.count) + digits + "Z"
    }

    /// Now, as an HTTP date in bytes.
    public mutating func httpDate() -> [UInt8] {
        _ = update()
        return dateHeader
    }
}
