/// Operating-system signals as callbacks on the loop.
internal import CUV

/// Calls back for one signal while it lives; does not keep the loop running.
@EventLoop
public final class SignalSource {
    private let handle: UnsafeMutablePointer<uv_signal_t>
    private let action: @EventLoop () -> Void

    /// Starts catching `signal`, for example `SIGTERM`.
    public init(_ signal: Int32, _ action: @escaping @EventLoop () -> Void) {
        self.action = action
        handle = .allocate(capacity: 1)
        uv_signal_init(EventLoop.executor.loop, handle)
        handle.pointee.data = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: cleared in deinit.
        uv_signal_start(
            handle,
            { handle, _ in
                guard let data = handle?.pointee.data else { return }
                let me = Unmanaged<SignalSource>.fromOpaque(data).takeUnretainedValue()  // SAFETY: see init.
                EventLoop.assumeIsolated { me.action() }
            }, signal)
        uv_unref(andiron_handle(handle))
    }

    isolated deinit {
        handle.pointee.data = nil
        uv_close(andiron_handle(handle)) { closed in closed?.deallocate() }
    }
}
