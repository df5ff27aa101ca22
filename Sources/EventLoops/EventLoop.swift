/// The one event loop of the process, as a global actor: whatever touches a handle is `@EventLoop`.
internal import CUV

/// Isolation to the thread that runs the libuv loop. Inside it code is synchronous and lock-free.
@globalActor
public actor EventLoop {
    public static let shared = EventLoop()
    /// The executor that runs the loop.
    public static let executor = LoopExecutor()

    public nonisolated var unownedExecutor: UnownedSerialExecutor {
        Self.executor.asUnownedSerialExecutor()
    }

    /// Runs `operation` here and now, from a C callback that is known to be on the loop; traps elsewhere.
    ///
    /// The check that the closure does not escape allocates its context; for callbacks that come with every request
    /// there is ``assumeIsolated(_:_:)``.
    @inlinable @inline(__always)
    public static func assumeIsolated<T>(_ operation: @EventLoop () throws -> T) rethrows -> T {
        precondition(executor.isCurrent, "not on the event loop's thread")
        return try withoutActuallyEscaping(operation) { operation in
            // SAFETY: the closure differs from the plain one only in its isolation, just checked.
            try unsafeBitCast(operation, to: (() throws -> T).self)()
        }
    }

    /// The same with the one value the operation needs, so that the closure need not capture anything.
    @inlinable @inline(__always)
    public static func assumeIsolated<A, T>(_ argument: A, _ operation: @escaping @EventLoop (A) -> T) -> T {
        precondition(executor.isCurrent, "not on the event loop's thread")
        // SAFETY: as above.
        return unsafeBitCast(operation, to: ((A) -> T).self)(argument)
    }
}

/// Starts a root task on the loop: the only way one is started, because it carries the loop as its
/// executor preference. Runs at once up to its first suspension.
@discardableResult
public func loopTask(_ body: @escaping @EventLoop () async -> Void) -> Task<Void, Never> {
    Task.immediate(executorPreference: EventLoop.executor) { @EventLoop in await body() }
}

/// Nanoseconds of the monotonic clock.
public func monotonicNanoseconds() -> UInt64 { uv_hrtime() }

/// Passes a value whose safety the caller vouches for into another isolation.
struct Unchecked<Value>: @unchecked Sendable {
    // SAFETY: used only to hand C pointers to code that runs on the same thread.
    let value: Value
}
