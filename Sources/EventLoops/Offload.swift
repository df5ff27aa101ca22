/// Work that would block the loop: file scans, hashing, name look-ups.
internal import CUV

/// Runs `work` on libuv's thread pool and comes back to the loop with its result.
@EventLoop
public func offload<T: Sendable>(_ work: @escaping @Sendable () -> T) async -> T {
    await withUnsafeContinuation { (continuation: UnsafeContinuation<T, Never>) in
        let job = OffloadedJob(run: {
            let result = work()
            return { continuation.resume(returning: result) }
        })
        let request = UnsafeMutablePointer<uv_work_t>.allocate(capacity: 1)
        // SAFETY: released exactly once, in the after-work callback.
        request.pointee.data = Unmanaged.passRetained(job).toOpaque()
        uv_queue_work(
            EventLoop.executor.loop, request,
            { request in
                guard let data = request?.pointee.data else { return }
                let job = Unmanaged<OffloadedJob>.fromOpaque(data).takeUnretainedValue()  // SAFETY: still retained.
                job.finish = job.run()
            },
            { request, _ in
                guard let request, let data = request.pointee.data else { return }
                let job = Unmanaged<OffloadedJob>.fromOpaque(data).takeRetainedValue()  // SAFETY: see above.
                request.deallocate()
                job.finish?()
            })
    }
}

/// A closure on its way through the pool.
private final class OffloadedJob {
    let run: () -> () -> Void
    var finish: (() -> Void)?

    init(run: @escaping () -> () -> Void) { self.run = run }
}
