/// host.json's `maxOutstandingRequests` and `maxConcurrentRequests`.
internal import DequeModule
public import EventLoops

/// Lets requests through up to a number, makes some wait, refuses the rest.
@EventLoop
public final class RequestThrottle {
    private let outstandingLimit: Int
    private let concurrentLimit: Int
    private var outstanding = 0
    private var running = 0
    private var waiting: Deque<UnsafeContinuation<Void, Never>> = []

    /// - Parameters: limits; nil is none.
    public init(outstanding: Int?, concurrent: Int?) {
        outstandingLimit = outstanding ?? .max
        concurrentLimit = concurrent ?? .max
    }

    /// Takes a place in the queue; false when it is full. Who is admitted waits for its ``turn()`` and leaves.
    public func admit() -> Bool {
        guard outstanding < outstandingLimit else { return false }
        outstanding += 1
        return true
    }

    /// Waits for a place among the running.
    public func turn() async {
        if running < concurrentLimit {
            running += 1
        } else {
            await withUnsafeContinuation { waiting.append($0) }
        }
    }

    /// Gives the place to the next.
    public func leave() {
        outstanding -= 1
        if waiting.isEmpty { running -= 1 } else { waiting.removeFirst().resume() }
    }
}
