/// The store's thread: takes all jobs that wait, runs them in one transaction, commits, hands them back.
internal import EventLoops
internal import Glibc

/// Jobs that were done together.
struct FinishedBatch {
    let jobs: [StoreJob]
    let writeCount: Int
}

// SAFETY: the queues are behind `monitor`; the connection is the thread's alone once it runs.
final class StoreWorker: @unchecked Sendable {
    private let lock: StoreLock
    private let connection: StoreConnection
    private let monitor = Monitor()
    private var waiting: [StoreJob] = []
    private var finished: [FinishedBatch] = []
    private var isIdle = false
    private var isStopping = false
    private var thread: pthread_t?
    private var notify: (@Sendable () -> Void)?

    /// Jobs in one transaction at most, so that the first of many is not kept waiting for the last.
    static let batchLimit = 10_000

    init(lock: StoreLock, connection: StoreConnection) {
        self.lock = lock
        self.connection = connection
    }

    /// Starts the thread; `signal` is sent whenever jobs are finished.
    func start(_ signal: LoopSignal) -> Bool {
        notify = { signal.send() }
        var thread = pthread_t()
        let me = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: joined in `stop`, before the owner lets go.
        let status = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<StoreWorker>.fromOpaque(argument).takeUnretainedValue().run()  // SAFETY: see above.
                return nil
            }, me)
        if status == 0 { self.thread = thread }
        return status == 0
    }

    func add(_ jobs: [StoreJob]) {
        monitor.locked {
            if waiting.isEmpty { waiting = jobs } else { waiting += jobs }
            if isIdle { monitor.signal() }
        }
    }

    func takeFinished() -> [FinishedBatch] {
        monitor.locked {
            let batches = finished
            finished = []
            return batches
        }
    }

    /// Does what waits, then ends the thread. Blocking.
    func stop() {
        monitor.locked {
            isStopping = true
            monitor.signal()
        }
        if let thread { pthread_join(thread, nil) }
        thread = nil
        notify = nil
        connection.close()
        lock.release()
    }

    private func run() {
        while let jobs = nextJobs() {
            let writeCount = perform(jobs)
            monitor.locked { finished.append(FinishedBatch(jobs: jobs, writeCount: writeCount)) }
            notify?()
        }
    }

    /// Waits for jobs; nil when the worker stops and none are left.
    private func nextJobs() -> [StoreJob]? {
        monitor.locked {
            while waiting.isEmpty && !isStopping {
                isIdle = true
                monitor.wait()
                isIdle = false
            }
            var jobs = waiting
            if jobs.count > Self.batchLimit {
                waiting = Array(jobs[Self.batchLimit...])
                jobs = Array(jobs[..<Self.batchLimit])
            } else {
                waiting = []
            }
            return jobs.isEmpty ? nil : jobs
        }
    }

    /// One transaction for all; when one of them fails, again with each kept apart. Returns the writes kept.
    private func perform(_ jobs: [StoreJob]) -> Int {
        let writeCount = jobs.count { $0.writes }
        if writeCount == 0 {
            for job in jobs {
                do throws(StoreError) { try job.run(connection) } catch { job.fail(error) }
            }
            return 0
        }
        do throws(StoreError) {
            try connection.beginTransaction()
            for job in jobs { try job.run(connection) }
            try connection.commit()
            return writeCount
        } catch {
            connection.rollBack()
            return performApart(jobs)
        }
    }

    private func performApart(_ jobs: [StoreJob]) -> Int {
        for job in jobs { job.hasFailed = false }
        do throws(StoreError) {
            try connection.beginTransaction()
            var begun = 0
            for (index, job) in jobs.enumerated() {
                do throws(StoreError) {
                    try connection.alone { () throws(StoreError) in try job.run(connection) }
                } catch {
                    job.fail(error)
                    guard !connection.isInTransaction else { continue }
                    // A full disk may end the whole transaction: what it held is lost, the rest begins another.
                    for lost in jobs[begun..<index] where !lost.hasFailed { lost.fail(error) }
                    begun = index + 1
                    try connection.beginTransaction()
                }
            }
            try connection.commit()
        } catch {
            connection.rollBack()
            for job in jobs where !job.hasFailed { job.fail(error) }
        }
        return jobs.count { $0.writes && !$0.hasFailed }
    }
}
