/// The store's thread: takes all jobs that wait, runs them in one transaction, commits, hands them back.
internal import EventLoops
internal import Glibc

/// Jobs that were done together.
struct FinishedBatch {
    let jobs: [StoreJob]
    let writeCount: Int
}

// SAFETY: the queues are behind `mutex`; the connection is the thread's alone once it runs.
final class StoreWorker: @unchecked Sendable {
    private let lock: StoreLock
    private let connection: StoreConnection
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
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
        pthread_mutex_lock(mutex)
        if waiting.isEmpty { waiting = jobs } else { waiting += jobs }
        if isIdle { pthread_cond_signal(condition) }
        pthread_mutex_unlock(mutex)
    }

    func takeFinished() -> [FinishedBatch] {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        let batches = finished
        finished = []
        return batches
    }

    /// Does what waits, then ends the thread. Blocking.
    func stop() {
        pthread_mutex_lock(mutex)
        isStopping = true
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
        if let thread { pthread_join(thread, nil) }
        thread = nil
        notify = nil
        connection.close()
        lock.release()
    }

    private func run() {
        while true {
            pthread_mutex_lock(mutex)
            while waiting.isEmpty && !isStopping {
                isIdle = true
                pthread_cond_wait(condition, mutex)
                isIdle = false
            }
            var jobs = waiting
            if jobs.count > Self.batchLimit {
                waiting = Array(jobs[Self.batchLimit...])
                jobs = Array(jobs[..<Self.batchLimit])
            } else {
                waiting = []
            }
            let ends = jobs.isEmpty && isStopping
            pthread_mutex_unlock(mutex)
            if ends { return }
            let writeCount = perform(jobs)
            pthread_mutex_lock(mutex)
            finished.append(FinishedBatch(jobs: jobs, writeCount: writeCount))
            pthread_mutex_unlock(mutex)
            notify?()
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
