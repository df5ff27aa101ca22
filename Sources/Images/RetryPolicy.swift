/// When to try again: exponential backoff with jitter, or when the other side says.
internal import Glibc

/// Counts attempts; progress sets it back.
struct RetryPolicy {
    /// Attempts without progress before it is given up.
    static let attemptLimit = 6
    /// The first wait; each next is twice as long, to at most 8 seconds.
    static let firstDelay = Duration.milliseconds(200)
    static let longestDelay = Duration.seconds(8)

    private var attempts = 0

    /// Something came through, so what follows is a new failure.
    mutating func progressed() { attempts = 0 }

    /// How long to wait before the next attempt; nil when there is none.
    ///
    /// - Parameter asked: what the other side asked for, `Retry-After`.
    mutating func nextDelay(asked: Duration?) -> Duration? {
        attempts += 1
        guard attempts < Self.attemptLimit else { return nil }
        if let asked { return asked }
        let doubled = Self.firstDelay * (1 << (attempts - 1))
        return min(doubled, Self.longestDelay) * Double.random(in: 0.5...1)
    }
}

/// `Retry-After`: seconds or an HTTP date; nil when it is neither.
func parseRetryAfter(_ text: String, now: Int = time(nil)) -> Duration? {
    if let seconds = Int(text), seconds >= 0 { return .seconds(seconds) }
    // Sun, 06 Nov 1994 08:49:37 GMT
    let words = text.split(separator: " ")
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    guard words.count == 6, words[5] == "GMT", let day = Int32(words[1]), let year = Int32(words[3]),
        let month = months.firstIndex(of: String(words[2]))
    else { return nil }
    let clock = words[4].split(separator: ":").compactMap { Int32($0) }
    guard clock.count == 3, (1970...9999).contains(year) else { return nil }
    var parts = tm()
    (parts.tm_mday, parts.tm_mon, parts.tm_year) = (day, Int32(month), year - 1900)
    (parts.tm_hour, parts.tm_min, parts.tm_sec) = (clock[0], clock[1], clock[2])
    return .seconds(max(0, timegm(&parts) - now))
}
