/// Timers on the loop.
internal import CUV

/// A timer that calls back on the loop; closed when dropped. It does not wake an idle loop unless started.
@EventLoop
public final class LoopTimer {
    private let handle: UnsafeMutablePointer<uv_timer_t>
    private let action: @EventLoop () -> Void

    /// A stopped timer; `action` runs each time it fires.
    public init(_ action: @escaping @EventLoop () -> Void) {
        self.action = action
        handle = .allocate(capacity: 1)
        uv_timer_init(EventLoop.executor.loop, handle)
        handle.pointee.data = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: cleared in deinit.
    }

    isolated deinit {
        handle.pointee.data = nil
        uv_close(andiron_handle(handle)) { closed in closed?.deallocate() }
    }

    /// Whether it will fire.
    public var isActive: Bool { uv_is_active(andiron_handle(handle)) != 0 }

    /// Fires after `delay`, then every `interval` if that is not zero. Restarts a running timer.
    public func start(after delay: Duration, every interval: Duration = .zero) {
        uv_update_time(EventLoop.executor.loop)
        uv_timer_start(
            handle,
            { timer in
                guard let data = timer?.pointee.data else { return }
                // SAFETY: `data` is the timer object until its deinit clears it.
                let me = Unmanaged<LoopTimer>.fromOpaque(data).takeUnretainedValue()
                EventLoop.assumeIsolated { me.action() }
            }, delay.wholeMilliseconds, interval.wholeMilliseconds)
    }

    /// Stops it; harmless when stopped.
    public func stop() { uv_timer_stop(handle) }
}

extension Duration {
    /// Milliseconds, rounded up so that a timer never fires early; negative is zero.
    public var wholeMilliseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return UInt64(seconds) * 1000 + UInt64((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }

    /// Nanoseconds; negative is zero.
    public var wholeNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }

    /// Seconds as a floating-point number, for messages and metrics.
    public var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }
}

/// Suspends for `duration` on the loop's own timer; returns early when the task is cancelled.
@EventLoop
public func sleep(for duration: Duration) async {
    let gate = Gate()
    let timer = LoopTimer { gate.open() }
    timer.start(after: duration)
    await withTaskCancellationHandler {
        await gate.wait()
    } onCancel: {
        loopTask { gate.open() }
    }
    timer.stop()
}

/// A one-time signal that any number of tasks can wait for.
@EventLoop
public final class Gate {
    /// True once ``open()`` was called.
    public private(set) var isOpen = false
    private var waiting: [UnsafeContinuation<Void, Never>] = []

    public init() {}

    /// Lets every present and future waiter through.
    public func open() {
        isOpen = true
        let resumed = waiting
        waiting = []
        for continuation in resumed { continuation.resume() }
    }

    /// Returns once the gate is open.
    public func wait() async {
        if isOpen { return }
        await withUnsafeContinuation { waiting.append($0) }
    }
}
