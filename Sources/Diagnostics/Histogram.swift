/// Latency histograms with fixed buckets, cheap enough for every request.

/// Counts durations in buckets that double from one microsecond to about a minute.
public struct Histogram: Sendable {
    /// Upper bounds are 2^index microseconds; the last bucket is unbounded.
    public static let bucketCount = 28
    private var counts: InlineArray<28, UInt64> = .init(repeating: 0)
    /// How many durations were counted.
    public private(set) var count: UInt64 = 0
    /// Their sum in nanoseconds.
    public private(set) var sum: UInt64 = 0

    public init() {}

    /// Counts one duration in nanoseconds.
    public mutating func observe(_ nanoseconds: UInt64) {
        let microseconds = nanoseconds / 1000
        let index = microseconds == 0 ? 0 : 64 - (microseconds - (nanoseconds % 1000 == 0 ? 1 : 0)).leadingZeroBitCount
        counts[min(index, Self.bucketCount - 1)] += 1
        count += 1
        sum += nanoseconds
    }

    /// Appends the Prometheus text form: cumulative buckets in seconds, sum and count.
    public func appendPrometheus(name: String, labels: String, to text: inout String) {
        var cumulative: UInt64 = 0
        let separator = labels.isEmpty ? "" : ","
        for index in 0..<(Self.bucketCount - 1) {
            cumulative += counts[index]
            text += "\(name)_bucket{\(labels)\(separator)le=\"\(Double(1 << index) / 1e6)\"} \(cumulative)\n"
        }
        text += "\(name)_bucket{\(labels)\(separator)le=\"+Inf\"} \(count)\n"
        text += "\(name)_sum{\(labels)} \(Double(sum) / 1e9)\n"
        text += "\(name)_count{\(labels)} \(count)\n"
    }
}
