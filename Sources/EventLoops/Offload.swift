/// Work that would block the loop: file scans, hashing, name look-ups.
internal import CUV

/// Runs `work` on libuv's thread pool and comes back to the loop with its result.
@EventLoop
public func offload<T: Sendable>(_ work: @escaping @Sendable () -> T) async -> T {
    await withUnsafeContinuation { (continuation: UnsafeContinuation<T, Never>) in
        OffloadedJob.start(
            OffloadedJob(run: {
                let result = work()
                return { continuation.resume(returning: result) }
            }))
    }
}

/// Runs `work` on libuv's thread pool and then `done` on the loop, without a task.
@EventLoop
public func offload<T: Sendable>(_ work: @escaping @Sendable () -> T, then done: @escaping @EventLoop (T) -> Void) {
    OffloadedJob.start(
        OffloadedJob(run: {
            let result = work()
            return { EventLoop.assumeIsolated { done(result) } }
        }))
}

/// A closure on its way through the pool. Its callbacks are written outside the loop's isolation, because
/// the first one runs on another thread.
private final class OffloadedJob {
    private let run: @Sendable () -> @Sendable () -> Void
    private var finish: (@Sendable () -> Void)?

    init(run: @escaping @Sendable () -> @Sendable () -> Void) { self.run = run }

    @EventLoop
    static func start(_ job: OffloadedJob) {
        let request = UnsafeMutablePointer<uv_work_t>.allocate(capacity: 1)
        // SAFETY: released exactly once, in `finished`.
        request.pointee.data = Unmanaged.passRetained(job).toOpaque()
        uv_queue_work(EventLoop.executor.loop, request, working, finished)
    }

    private nonisolated static let working: uv_work_cb = { request in
        guard let data = request?.pointee.data else { return }
        let job = Unmanaged<OffloadedJob>.fromOpaque(data).takeUnretainedValue()  // SAFETY: still retained.
        job.finish = job.run()
    }

    private nonisolated static let finished: uv_after_work_cb = { request, _ in
        guard let request, let data = request.pointee.data else { return }
        let job = Unmanaged<OffloadedJob>.fromOpaque(data).takeRetainedValue()  // SAFETY: see `start`.
        request.deallocate()
        job.finish?()
    }
}
