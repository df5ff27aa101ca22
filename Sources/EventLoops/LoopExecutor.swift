/// The libuv loop as a Swift executor: jobs for `@EventLoop` run on the thread that runs the loop.
///
/// It is both a serial executor (for the actor) and a task executor (as a root task's preference).
/// Without the preference, a continuation that resumes later goes through another thread first,
/// forty times dearer (docs/decisions/001-loop-as-global-actor.md).
internal import CUV
internal import Glibc
internal import Synchronization

/// Something that has work to do once per turn of the loop, after all its callbacks and jobs.
@EventLoop
protocol TurnEnd: AnyObject {
    func turnEnded()
}

/// Something to do once at the end of a turn of the loop, however often it is asked for in that turn.
@EventLoop
public final class TurnEndAction: TurnEnd {
    private var action: @EventLoop () -> Void
    private var isScheduled = false

    /// Does nothing until ``schedule()``.
    public init(_ action: @escaping @EventLoop () -> Void) { self.action = action }

    /// Runs the action when the turn's callbacks and jobs are done.
    public func schedule() {
        guard !isScheduled else { return }
        isScheduled = true
        EventLoop.executor.atTurnEnd(self)
    }

    /// Drops the action for good; what it refers to may go.
    public func cancel() { action = {} }

    func turnEnded() {
        isScheduled = false
        action()
    }
}

// SAFETY: `local`, `spare` and `ending` are touched by the loop thread only; `remote` is locked.
/// Runs jobs on the libuv loop's thread.
public final class LoopExecutor: SerialExecutor, TaskExecutor, @unchecked Sendable {
    let loop: UnsafeMutablePointer<uv_loop_t>
    private let wake: UnsafeMutablePointer<uv_async_t>
    private let pump: UnsafeMutablePointer<uv_prepare_t>
    private let spin: UnsafeMutablePointer<uv_idle_t>
    private var local: [UnownedJob] = []
    private var spare: [UnownedJob] = []
    /// Streams that have something to write when this turn ends, after all its callbacks and jobs.
    private var ending: [ByteStream] = []
    private var endingOthers: [any TurnEnd] = []
    private let remote = Mutex<[UnownedJob]>([])
    private let thread = Atomic<UInt>(0)
    private let remoteJobCount = Atomic<Int>(0)

    /// How often jobs may queue further jobs before I/O is polled again.
    private static let roundsPerTurn = 8

    init() {
        loop = .allocate(capacity: 1)
        wake = .allocate(capacity: 1)
        pump = .allocate(capacity: 1)
        spin = .allocate(capacity: 1)
        uv_loop_init(loop)
        uv_prepare_init(loop, pump)
        uv_idle_init(loop, spin)
        let me = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: the executor lives as long as the process.
        wake.pointee.data = me
        pump.pointee.data = me
        uv_async_init(loop, wake) { handle in
            guard let data = handle?.pointee.data else { return }
            // SAFETY: set above to the executor, which is never freed.
            Unmanaged<LoopExecutor>.fromOpaque(data).takeUnretainedValue().takeRemote()
        }
        wake.pointee.data = me
        uv_prepare_start(pump) { handle in
            guard let data = handle?.pointee.data else { return }
            // SAFETY: as above.
            Unmanaged<LoopExecutor>.fromOpaque(data).takeUnretainedValue().drain()
        }
        uv_unref(andiron_handle(pump))
    }

    /// How many jobs have arrived from other threads since the start; steady state adds none.
    public var remoteJobs: Int { remoteJobCount.load(ordering: .relaxed) }

    /// True on the loop's thread.
    public var isCurrent: Bool { thread.load(ordering: .relaxed) == UInt(pthread_self()) }

    /// Makes the calling thread the loop's thread; call once, before anything else.
    public func bind() {
        signal(SIGPIPE, SIG_IGN)
        // A write past the limit of a file's size is to fail, not to end the process.
        signal(SIGXFSZ, SIG_IGN)
        thread.store(UInt(pthread_self()), ordering: .relaxed)
    }

    /// Runs the loop on the calling thread until ``stop()``.
    public func run() {
        uv_run(loop, UV_RUN_DEFAULT)
    }

    /// Ends ``run()`` after the current turn; loop thread only.
    public func stop() {
        uv_stop(loop)
        uv_async_send(wake)
    }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isCurrent {
            local.append(job)
            return
        }
        remoteJobCount.add(1, ordering: .relaxed)
        let first = remote.withLock { jobs in
            jobs.append(job)
            return jobs.count == 1
        }
        if first { uv_async_send(wake) }
    }

    public func isIsolatingCurrentContext() -> Bool? { isCurrent }

    public func checkIsolated() { precondition(isCurrent, "not on the event loop's thread") }

    func atTurnEnd(_ stream: ByteStream) { ending.append(stream) }

    func atTurnEnd(_ other: any TurnEnd) { endingOthers.append(other) }

    private func takeRemote() {
        remote.withLock { jobs in
            local.append(contentsOf: jobs)
            jobs.removeAll(keepingCapacity: true)
        }
    }

    private func drain() {
        var rounds = Self.roundsPerTurn
        repeat {
            while !local.isEmpty && rounds > 0 {
                rounds -= 1
                swap(&local, &spare)
                for job in spare {
                    job.runSynchronously(
                        isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
                }
                spare.removeAll(keepingCapacity: true)
            }
            flush()
        } while !local.isEmpty && rounds > 0
        if local.isEmpty { uv_idle_stop(spin) } else { uv_idle_start(spin) { _ in } }
    }

    private func flush() {
        // Their order does not matter, and what is taken from the end needs no counting of references.
        repeat {
            while let other = endingOthers.popLast() { EventLoop.assumeIsolated { other.turnEnded() } }
            while let stream = ending.popLast() { EventLoop.assumeIsolated(stream) { $0.turnEnded() } }
        } while !endingOthers.isEmpty
    }
}
