/// host.json's `maxOutstandingRequests` and `maxConcurrentRequests`.
internal import DequeModule
public import EventLoops

/// Lets requests through up to a number, makes some wait, refuses the rest.
@EventLoop
public final class RequestThrottle {
    private let outstandingLimit: Int
    private let concurrentLimit: Int
    private var running = 0
    private var waiting: Deque<UnsafeContinuation<Void, Never>> = []

    /// - Parameters: limits; nil is none.
    public init(outstanding: Int?, concurrent: Int?) {
        outstandingLimit = outstanding ?? .max
        concurrentLimit = concurrent ?? .max
    }

    /// Waits for a place among the running.
    ///
    /// - Returns: false, at once, when the queue is full.
    public func enter() async -> Bool {
        if running + waiting.count >= outstandingLimit { return false }
        if running < concurrentLimit {
            running += 1
            return true
        }
        await withUnsafeContinuation { waiting.append($0) }
        return true
    }

    /// Gives the place to the next.
    public func leave() {
        if waiting.isEmpty { running -= 1 } else { waiting.removeFirst().resume() }
    }
}
