/// How another thread, or the end of a turn, calls back on the loop.
internal import CUV

/// Lets any thread have `action` run on the loop soon; several sends may become one call. It does not keep
/// an idle loop from ending. The owner sees to it that nobody sends once the signal is dropped.
@EventLoop
public final class LoopSignal {
    // SAFETY: the handle is touched on the loop, but for uv_async_send, which any thread may call.
    private nonisolated(unsafe) let handle: UnsafeMutablePointer<uv_async_t>
    private let action: @EventLoop () -> Void

    public init(_ action: @escaping @EventLoop () -> Void) {
        self.action = action
        handle = .allocate(capacity: 1)
        uv_async_init(EventLoop.executor.loop, handle) { handle in
            guard let data = handle?.pointee.data else { return }
            // SAFETY: `data` is the signal until its deinit clears it.
            let me = Unmanaged<LoopSignal>.fromOpaque(data).takeUnretainedValue()
            EventLoop.assumeIsolated { me.action() }
        }
        handle.pointee.data = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: cleared in deinit.
        uv_unref(andiron_handle(handle))
    }

    isolated deinit {
        handle.pointee.data = nil
        uv_close(andiron_handle(handle)) { closed in closed?.deallocate() }
    }

    /// Has the action run on the loop; callable from any thread.
    public nonisolated func send() { uv_async_send(handle) }
}

/// Runs an action once at the end of the current turn of the loop, however often it was asked to.
@EventLoop
public final class TurnEnding: TurnEnd {
    private let action: @EventLoop () -> Void
    private var isRequested = false

    public init(_ action: @escaping @EventLoop () -> Void) { self.action = action }

    /// Asks for the action at the end of this turn.
    public func request() {
        guard !isRequested else { return }
        isRequested = true
        EventLoop.executor.atTurnEnd(self)
    }

    func turnEnded() {
        isRequested = false
        action()
    }
}
