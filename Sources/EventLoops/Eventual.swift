/// A value that is there already, or that comes later.
///
/// Most requests are answered without waiting for anything, and most others wait once, for a worker. They
/// take this way without a task, a continuation or a switch of executors
/// (docs/decisions/004-answers-now-or-later.md).
@EventLoop
public enum Eventual<Value> {
    case now(Value)
    /// Calls the closure it is given once, with the value, on the loop.
    case later(@EventLoop (@escaping @EventLoop (Value) -> Void) -> Void)

    /// The value of an async closure, which runs in a root task when the value is wanted.
    public static func awaiting(_ body: @escaping @EventLoop () async -> Value) -> Eventual {
        .later { done in loopTask { done(await body()) } }
    }

    /// The value after `transform`, still now or later.
    @inline(__always)
    public func map<Other>(_ transform: @escaping @EventLoop (Value) -> Other) -> Eventual<Other> {
        switch self {
        case .now(let value): .now(transform(value))
        case .later(let wait): .later { done in wait { value in done(transform(value)) } }
        }
    }

    /// Calls `done` with the value, at once when it is there.
    @inline(__always)
    public func whenDone(_ done: @escaping @EventLoop (Value) -> Void) {
        switch self {
        case .now(let value): done(value)
        case .later(let wait): wait(done)
        }
    }

    /// Waits for the value, if it must.
    public func value() async -> Value {
        switch self {
        case .now(let value): value
        case .later(let wait):
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Unshared, Never>) in
                wait { continuation.resume(returning: Unshared(value: $0)) }
            }.value
        }
    }

    // SAFETY: the value is handed from the loop to the loop.
    private struct Unshared: @unchecked Sendable {
        let value: Value
    }
}
