/// A value that is there already, or that comes later.
///
/// Most requests are answered without waiting for anything, and most others wait once, for a worker. They
/// take this way without a task, a continuation or a switch of executors
/// (docs/decisions/004-answers-now-or-later.md).
@EventLoop
public enum Eventual<Value> {
    case now(Value)
    case pending(Pending<Value>)

    /// A value that `start` gives to the closure it is given, once, on the loop; `start` is called when the value
    /// is wanted.
    public static func later(_ start: @escaping @EventLoop (@escaping @EventLoop (Value) -> Void) -> Void) -> Eventual {
        .pending(PendingClosure(start))
    }

    /// The value of an async closure, which runs in a root task when the value is wanted.
    public static func awaiting(_ body: @escaping @EventLoop () async -> Value) -> Eventual {
        .later { done in loopTask { done(await body()) } }
    }

    /// The value after `transform`, still now or later.
    @inline(__always)
    public func map<Other>(_ transform: @escaping @EventLoop (Value) -> Other) -> Eventual<Other> {
        switch self {
        case .now(let value): .now(transform(value))
        case .pending(let pending): .later { done in pending.whenDone { done(transform($0)) } }
        }
    }

    /// Calls `body` with the value, now or later, on the loop.
    public func whenDone(_ body: @escaping @EventLoop (Value) -> Void) {
        switch self {
        case .now(let value): body(value)
        case .pending(let pending): pending.whenDone(body)
        }
    }

    /// Waits for the value, if it must.
    public func value() async -> Value {
        switch self {
        case .now(let value): value
        case .pending(let pending):
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Unshared, Never>) in
                pending.whenDone { continuation.resume(returning: Unshared(value: $0)) }
            }.value
        }
    }

    // SAFETY: the value is handed from the loop to the loop.
    private struct Unshared: @unchecked Sendable {
        let value: Value
    }
}

/// Takes one value that comes later.
@EventLoop
public protocol Receiver<Value>: AnyObject {
    associatedtype Value
    func receive(_ value: Value)
}

/// A value that comes later. A step of a request's way back is a subclass that is also a ``Receiver`` of the step
/// below: one object where closures would be three, which is what counts when thirty-two requests wait at once.
@EventLoop
open class Pending<Value> {
    private var receiver: (any Receiver<Value>)?

    public init() {}

    /// Begins the work; called when the value is wanted, once.
    open func start() {}

    /// Has the value given to `receiver`, which is kept until then.
    public final func pass(to receiver: any Receiver<Value>) {
        self.receiver = receiver
        start()
    }

    /// Calls `body` with the value.
    public final func whenDone(_ body: @escaping @EventLoop (Value) -> Void) { pass(to: ClosureReceiver(body)) }

    /// Hands the value on; a second one is dropped.
    public final func resolve(_ value: Value) {
        guard let receiver else { return }
        self.receiver = nil
        receiver.receive(value)
    }
}

private final class PendingClosure<Value>: Pending<Value> {
    private let begin: @EventLoop (@escaping @EventLoop (Value) -> Void) -> Void

    init(_ begin: @escaping @EventLoop (@escaping @EventLoop (Value) -> Void) -> Void) { self.begin = begin }

    override func start() { begin { [self] in resolve($0) } }
}

private final class ClosureReceiver<Value>: Receiver {
    private let body: @EventLoop (Value) -> Void

    init(_ body: @escaping @EventLoop (Value) -> Void) { self.body = body }

    func receive(_ value: Value) { body(value) }
}
