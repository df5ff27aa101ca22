/// Readiness of a file descriptor that a C library or the kernel owns.
internal import CUV

/// Watches one descriptor; the descriptor itself stays its owner's. Stops when dropped.
@EventLoop
public final class PollHandle {
    private let handle: UnsafeMutablePointer<uv_poll_t>
    private let ready: @EventLoop (_ readable: Bool, _ writable: Bool) -> Void

    /// Watches nothing until ``watch(readable:writable:)``.
    public init(
        descriptor: Int32, _ ready: @escaping @EventLoop (_ readable: Bool, _ writable: Bool) -> Void
    ) throws(SystemError) {
        let handle = UnsafeMutablePointer<uv_poll_t>.allocate(capacity: 1)
        let status = uv_poll_init(EventLoop.executor.loop, handle, descriptor)
        guard status == 0 else {
            // Before any property is set: once all are, `deinit` runs for an init that throws, and would close this.
            handle.deallocate()
            throw SystemError("uv_poll_init", status)
        }
        self.handle = handle
        self.ready = ready
        handle.pointee.data = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: cleared in deinit.
    }

    isolated deinit {
        handle.pointee.data = nil
        uv_close(andiron_handle(handle)) { closed in closed?.deallocate() }
    }

    /// Changes what is watched; both false stops.
    public func watch(readable: Bool, writable: Bool) {
        guard readable || writable else {
            uv_poll_stop(handle)
            return
        }
        let events = (readable ? UV_READABLE.rawValue : 0) | (writable ? UV_WRITABLE.rawValue : 0)
        uv_poll_start(handle, Int32(events)) { handle, status, events in
            guard let data = handle?.pointee.data else { return }
            let me = Unmanaged<PollHandle>.fromOpaque(data).takeUnretainedValue()  // SAFETY: see init.
            // A failed poll is reported as ready: the owner's next call on the descriptor gives the reason.
            let bits = status < 0 ? UInt32.max : UInt32(bitPattern: events)
            EventLoop.assumeIsolated {
                me.ready(bits & UV_READABLE.rawValue != 0, bits & UV_WRITABLE.rawValue != 0)
            }
        }
    }
}
