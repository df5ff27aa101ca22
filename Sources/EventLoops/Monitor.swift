/// A mutex with one condition, for what the loop's thread shares with another.
internal import Glibc

// SAFETY: it holds nothing but the two locks, which are made for being shared.
/// Guards an owner's state; the owner says in its `SAFETY` line what is behind it.
public final class Monitor: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    public init() {
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(condition)
        mutex.deallocate()
        condition.deallocate()
    }

    /// Runs `body` while no other thread is inside.
    @inline(__always)
    public func locked<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }

    /// Lets the others in until ``signal()``; inside ``locked(_:)`` only, and in a loop that looks whether it is time.
    public func wait() { pthread_cond_wait(condition, mutex) }

    /// Wakes the thread that waits.
    public func signal() { pthread_cond_signal(condition) }
}
