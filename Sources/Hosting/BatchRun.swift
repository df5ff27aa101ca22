/// Scoring a folder: every file that has no result yet, with all workers of a function.
internal import FunctionApps
internal import Bindings
internal import Diagnostics
public import EventLoops
internal import Invocations
public import StorageAccounts

/// How far a batch run has come.
public struct BatchProgress: Sendable {
    /// Files found.
    public var total = 0
    /// Results that were there before.
    public var skipped = 0
    public var scored = 0
    public var failed = 0
    public var inputByteCount = 0
    /// Seconds since the first file was begun.
    public var seconds = 0.0

    public var finished: Int { skipped + scored + failed }
    public var perSecond: Double { seconds > 0 ? Double(scored + failed) / seconds : 0 }
}

/// One run over a folder.
@EventLoop
public final class BatchRun {
    public private(set) var progress = BatchProgress()
    private let host: FunctionHost
    private let functionName: String
    private let folders: BatchFolders
    private let concurrency: Int
    private var names: [String] = []
    private var next = 0
    private var running = 0
    private var isStopped = false
    private var begunAt: UInt64 = 0
    private var random = RandomBytes()
    private let done = Gate()

    /// Files a worker has waiting for it, so that it never waits for one.
    static let filesPerWorker = 4

    /// - Parameters:
    ///   - host: started, with the function loaded.
    ///   - workerCount: its workers.
    public init(host: FunctionHost, functionName: String, folders: BatchFolders, workerCount: Int) {
        self.host = host
        self.functionName = functionName
        self.folders = folders
        concurrency = max(1, workerCount) * Self.filesPerWorker
    }

    /// Scores what is to be scored; returns when all of it is, or when what had begun before ``stop()`` is.
    public func run() async {
        names = await offload { [folders] in
            folders.clean()
            return folders.names()
        }
        progress.total = names.count
        begunAt = monotonicNanoseconds()
        fill()
        await done.wait()
        progress.seconds = Double(monotonicNanoseconds() - begunAt) / 1e9
    }

    /// Begins no more files.
    public func stop() {
        isStopped = true
        if running == 0 { done.open() }
    }

    private func fill() {
        while running < concurrency, next < names.count, !isStopped {
            let name = names[next]
            next += 1
            running += 1
            loopTask { [self] in
                await score(name)
                running -= 1
                progress.seconds = Double(monotonicNanoseconds() - begunAt) / 1e9
                fill()
            }
        }
        if running == 0, next >= names.count || isStopped { done.open() }
    }

    private func score(_ name: String) async {
        let limit = host.app.configuration.blobs.maxBlobBytes
        let reading = await offload { [folders] () -> BlobReading? in
            folders.isDone(name) ? nil : folders.read(name, limit: limit)
        }
        switch reading {
        case nil: progress.skipped += 1
        case .blob(let blob): await score(name, blob)
        case .gone: progress.total -= 1
        case .beingWritten: fail(name, "AN7013", "it is being written")
        case .failed(let error): fail(name, error.code, error.message)
        }
    }

    private func score(_ name: String, _ blob: Blob) async {
        var event = TriggerEvent(trigger: "batch", body: blob.contents)
        event.source = name
        event.data.set("name", name)
        let invocation = Invocation(
            id: InvocationID(from: &random), functionName: functionName, event: event,
            stages: StageTimes(entering: .bind, at: monotonicNanoseconds()))
        let outcome = await host.dispatcher.dispatch(invocation).value()
        if let failure = outcome.failure { return fail(name, failure.code, nil) }
        guard let response = outcome.response, response.status < 400 else {
            return fail(name, "AN4004", "the script answered \(outcome.response?.status ?? 0)")
        }
        let contents = FunctionBindings.result(of: response).contents ?? []
        switch await offload({ [folders] in folders.write(name, contents, source: blob.properties.etag) }) {
        case .success:
            progress.scored += 1
            progress.inputByteCount += blob.contents.count
        case .failure(let error): fail(name, error.code, error.message)
        }
    }

    /// A failed invocation has its record already; what failed beside it is told here.
    private func fail(_ name: String, _ code: String, _ message: String?) {
        progress.failed += 1
        guard let message else { return }
        host.log(HostEvent(.log, .error, "error[\(code)]: '\(name)': \(message)", [("code", .text(code))]))
    }
}
