/// Alarms at a time of day.
internal import CUV
internal import Glibc

/// Calls back at a time of the wall clock: it follows the clock when that is set, and counts what a machine sleeps,
/// which ``LoopTimer`` does not. Wakes nobody unless started; closed when dropped.
@EventLoop
public final class WallTimer {
    private let descriptor: Int32
    private var poll: PollHandle?

    /// A stopped alarm; `action` runs each time it goes off.
    ///
    /// - Throws: the system's reason when there is no descriptor left.
    public init(_ action: @escaping @EventLoop () -> Void) throws(SystemError) {
        let descriptor = timerfd_create(CLOCK_REALTIME, Int32(TFD_NONBLOCK | TFD_CLOEXEC))
        guard descriptor >= 0 else { throw SystemError(errno: errno, call: "timerfd_create") }
        do throws(SystemError) {
            poll = try PollHandle(descriptor: descriptor) { _, _ in
                var count: UInt64 = 0
                // Nothing to read means that it was stopped, or set anew, as it went off.
                guard read(descriptor, &count, 8) == 8 else { return }
                action()
            }
        } catch {
            close(descriptor)
            throw error
        }
        self.descriptor = descriptor
    }

    isolated deinit {
        // Before its descriptor, whose number may be another's at once.
        poll = nil
        close(descriptor)
    }

    /// Goes off once at `milliseconds` since 1970, UTC, or at once when that is past. Replaces an earlier time.
    public func start(at milliseconds: Int64) {
        let time = max(1, milliseconds)
        var setting = itimerspec()
        setting.it_value.tv_sec = Int(time / 1000)
        setting.it_value.tv_nsec = Int(time % 1000) * 1_000_000
        timerfd_settime(descriptor, 1, &setting, nil)  // TFD_TIMER_ABSTIME
        poll?.watch(readable: true, writable: false)
    }

    /// Stops it; harmless when stopped.
    public func stop() {
        var setting = itimerspec()
        timerfd_settime(descriptor, 0, &setting, nil)
        poll?.watch(readable: false, writable: false)
    }
}
