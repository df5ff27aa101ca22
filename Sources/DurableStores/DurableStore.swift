/// A durable store: SQLite on a thread of its own, many writes to one fsync.
///
/// Every write submitted in one turn of the loop, or while the commit before it runs, shares one transaction
/// (docs/decisions/010-durable-stores.md). A write is done when its transaction is on disk, and not before.
internal import CSQLite
public import EventLoops
internal import Glibc

/// Numbers of a store.
public struct StoreStatus: Sendable, Equatable {
    /// Transactions that wrote.
    public var commits = 0
    /// Writes in them.
    public var writes = 0
    /// Writes and reads that wait.
    public var waiting = 0
}

/// One open store. Writes and reads run in the order they were submitted.
@EventLoop
public final class DurableStore {
    public let path: String
    private let worker: StoreWorker
    private var turn: TurnEnding?
    private var signal: LoopSignal?
    private var submitted: [StoreJob] = []
    private var isClosed = false
    public private(set) var status = StoreStatus()

    /// Opens the file, making or upgrading it. Blocking, for milliseconds.
    ///
    /// - Parameters:
    ///   - path: the file; its folder exists.
    ///   - pageLimit: pages of 4 KiB the file may grow to; nil is without limit.
    public init(path: String, schema: StoreSchema, pageLimit: Int? = nil) throws(StoreError) {
        self.path = path
        let lock = try StoreLock(path: path)
        worker = StoreWorker(
            lock: lock, connection: try StoreFile.open(path: path, schema: schema, pageLimit: pageLimit))
        signal = LoopSignal { [unowned self] in self.collect() }
        turn = TurnEnding { [unowned self] in self.handOver() }
        guard let signal, worker.start(signal) else {
            throw StoreError.unopenable(path: path, reason: "no thread can be started")
        }
    }

    isolated deinit {
        worker.stop()
    }

    /// Runs `body` in a transaction; the result comes when it is on disk.
    ///
    /// `body` runs on the store's thread and may run twice: when another write of the same transaction fails,
    /// each is tried again on its own. When it throws, nothing of it is kept.
    public func write<Value: Sendable>(
        _ body: @escaping @Sendable (StoreConnection) throws(StoreError) -> Value
    ) -> Eventual<Result<Value, StoreError>> {
        submit(body, writes: true)
    }

    /// Runs `body`, which only reads, after the writes submitted before it.
    public func read<Value: Sendable>(
        _ body: @escaping @Sendable (StoreConnection) throws(StoreError) -> Value
    ) -> Eventual<Result<Value, StoreError>> {
        submit(body, writes: false)
    }

    private func submit<Value: Sendable>(
        _ body: @escaping @Sendable (StoreConnection) throws(StoreError) -> Value, writes: Bool
    ) -> Eventual<Result<Value, StoreError>> {
        if isClosed { return .now(.failure(.closed(path: path))) }
        let job = TypedStoreJob(writes: writes, body: body)
        submitted.append(job)
        status.waiting += 1
        turn?.request()
        return .later { done in job.whenDone(done) }
    }

    private func handOver() {
        let jobs = submitted
        submitted = []
        if !jobs.isEmpty { worker.add(jobs) }
    }

    private func collect() {
        for batch in worker.takeFinished() {
            if batch.writeCount > 0 {
                status.commits += 1
                status.writes += batch.writeCount
            }
            status.waiting -= batch.jobs.count
            for job in batch.jobs { job.complete() }
        }
    }

    /// Finishes what was submitted and lets go of the file.
    public func close() async {
        guard !isClosed else { return }
        isClosed = true
        handOver()
        await offload { [worker] in worker.stop() }
        collect()
        signal = nil
    }
}

/// A write or read on its way. Written by the loop, run by the store's thread, completed by the loop; the
/// worker's lock lies between.
class StoreJob: @unchecked Sendable {
    // SAFETY: see above; no two threads have it at once.
    let writes: Bool
    var hasFailed = false

    init(writes: Bool) { self.writes = writes }

    func run(_ connection: StoreConnection) throws(StoreError) {}
    func fail(_ error: StoreError) { hasFailed = true }
    @EventLoop func complete() {}
}

// SAFETY: as StoreJob.
final class TypedStoreJob<Value: Sendable>: StoreJob, @unchecked Sendable {
    private let body: @Sendable (StoreConnection) throws(StoreError) -> Value
    private var result: Result<Value, StoreError>?
    private var isComplete = false
    private var waiter: (@EventLoop (Result<Value, StoreError>) -> Void)?

    init(writes: Bool, body: @escaping @Sendable (StoreConnection) throws(StoreError) -> Value) {
        self.body = body
        super.init(writes: writes)
    }

    override func run(_ connection: StoreConnection) throws(StoreError) {
        result = nil
        result = .success(try body(connection))
    }

    override func fail(_ error: StoreError) {
        super.fail(error)
        result = .failure(error)
    }

    @EventLoop
    func whenDone(_ done: @escaping @EventLoop (Result<Value, StoreError>) -> Void) {
        if isComplete, let result { done(result) } else { waiter = done }
    }

    @EventLoop
    override func complete() {
        isComplete = true
        guard let waiter, let result else { return }
        self.waiter = nil
        waiter(result)
    }
}
