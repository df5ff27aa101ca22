/// A value that is there already, or that has to be waited for.
///
/// Most requests are answered without waiting for anything. They take this way without a task, a
/// continuation or a switch of executors (docs/decisions/004-answers-now-or-later.md).
@EventLoop
public enum Eventual<Value> {
    case now(Value)
    case later(@EventLoop () async -> Value)

    /// The value after `transform`, still now or later.
    @inline(__always)
    public func map<Other>(_ transform: @escaping @EventLoop (Value) -> Other) -> Eventual<Other> {
        switch self {
        case .now(let value): .now(transform(value))
        case .later(let wait): .later { transform(await wait()) }
        }
    }

    /// Waits for the value, if it must.
    public func value() async -> Value {
        switch self {
        case .now(let value): value
        case .later(let wait): await wait()
        }
    }
}
