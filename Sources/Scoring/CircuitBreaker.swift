/// Leaves a failing Redis alone for a while.

internal import EventLoops

/// Opens after three failures in a row for a second; then one command tries, and its outcome closes or reopens it.
struct CircuitBreaker {
    static let failureLimit = 3
    static let pause = Duration.seconds(1)

    private var failures = 0
    private var openUntil: UInt64 = 0

    /// Whether a command may be sent; of those that come after the pause only the first, until it is decided.
    mutating func allows(now: UInt64) -> Bool {
        guard failures >= Self.failureLimit else { return true }
        guard now >= openUntil else { return false }
        openUntil = now + Self.pause.wholeNanoseconds
        return true
    }

    /// Whether commands are held back.
    var isOpen: Bool { failures >= Self.failureLimit }

    /// Counts a success; true when this one closed the breaker.
    mutating func succeeded() -> Bool {
        let wasOpen = isOpen
        failures = 0
        return wasOpen
    }

    /// Counts a failure; true when this one opened the breaker.
    mutating func failed(now: UInt64) -> Bool {
        failures += 1
        guard failures >= Self.failureLimit else { return false }
        openUntil = now + Self.pause.wholeNanoseconds
        return failures == Self.failureLimit
    }
}
