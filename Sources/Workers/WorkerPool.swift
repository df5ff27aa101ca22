/// The workers of one bundle: starts them, hands them calls, replaces those that fail.
public import Bundles
internal import DequeModule
public import Diagnostics
public import EventLoops
internal import Glibc
public import Invocations
internal import JSONText

/// What an entry script's run() takes.
public enum ScriptMode: String, Sendable {
    /// The body as text.
    case text
    /// Parameters by the schemas it is decorated with.
    case schema
    /// The whole request.
    case rawhttp
}

/// What a ready worker says about its script.
public final class ScriptReport: Sendable {
    public let mode: ScriptMode
    public let wantsHeaders: Bool
    /// OpenAPI documents by version `2`, `3`, `3.1`.
    public let swagger: [String: String]
    public let python: String

    init(mode: ScriptMode, wantsHeaders: Bool, swagger: [String: String], python: String) {
        self.mode = mode
        self.wantsHeaders = wantsHeaders
        self.swagger = swagger
        self.python = python
    }
}

/// How a pool is run.
public struct WorkerPoolSettings: Sendable {
    /// Processes.
    public var processCount: Int
    /// Limit for one run(); nil is none.
    public var timeout: Duration?
    /// The key that sets it, for the error's remedy.
    public var timeoutName: String
    /// Environment of the workers.
    public var environment: [String: String]
    /// The worker program on disk.
    public var workerProgram: String

    /// Calls that may wait.
    public var queueLimit: Int
    /// How long a start may take, environment apart.
    public var startTimeout: Duration

    public static let defaultQueueLimit = 100_000
    public static let defaultStartTimeout = Duration.seconds(300)
    /// How long a stopped worker may take to exit before it is killed.
    public static let stopTimeout = Duration.seconds(5)
    /// How often a call may be given back unstarted.
    static let returnLimit = 3
    /// How often memory is looked at while a limited worker is busy.
    static let memoryInterval = Duration.milliseconds(50)
    /// The longest pause before a worker is replaced.
    static let backOffLimit = Duration.seconds(30)
    /// How soon after a failed start a new call may cause another.
    static let retryStartAfter = Duration.seconds(1)

    public init(
        processCount: Int, timeout: Duration?, timeoutName: String, environment: [String: String],
        workerProgram: String, queueLimit: Int = Self.defaultQueueLimit,
        startTimeout: Duration = Self.defaultStartTimeout
    ) {
        self.processCount = processCount
        self.timeout = timeout
        self.timeoutName = timeoutName
        self.environment = environment
        self.workerProgram = workerProgram
        self.queueLimit = queueLimit
        self.startTimeout = startTimeout
    }
}

/// Numbers for status pages and metrics.
public struct WorkerPoolStatus: Sendable {
    public var ready = 0
    public var starting = 0
    public var busy = 0
    public var queued = 0
    public var restarts = 0
    public var pids: [Int32] = []
    public var failure: String?
}

/// A pool; ``stop()`` ends it.
@EventLoop
public final class WorkerPool: WorkerProcessOwner {
    public let functionName: String
    public let bundle: Bundle
    /// Set when the first worker is ready.
    public private(set) var report: ScriptReport?
    /// Why no worker can be started, until one could.
    public private(set) var startFailure: InvocationFailure?
    /// The last cold start's phases.
    public private(set) var coldStart = ColdStart()

    private let settings: WorkerPoolSettings
    private let environments: PythonEnvironments
    private let log: EventLog
    private var workers: [WorkerProcess] = []
    private var queue: Deque<PendingCall> = []
    private var isStarting = false
    private var isStopping = false
    private var lastStart: UInt64 = 0
    private var failuresInARow = 0
    private var restarts = 0
    private var indexes: [ObjectIdentifier: Int] = [:]
    private var phaseStart: UInt64 = 0
    private var deadlineTimer: LoopTimer?
    private var memoryTimer: LoopTimer?
    private var restartTimer: LoopTimer?
    private var settled = Gate()
    private let emptied = Gate()
    /// Set by ``stop()``: opens when nothing is queued or in flight, or nothing is left to run it.
    private var quiet: Gate?

    public init(
        functionName: String, bundle: Bundle, settings: WorkerPoolSettings, environments: PythonEnvironments,
        log: EventLog
    ) {
        self.functionName = functionName
        self.bundle = bundle
        self.settings = settings
        self.environments = environments
        self.log = log
        deadlineTimer = LoopTimer { [unowned self] in self.checkDeadlines() }
        memoryTimer = LoopTimer { [unowned self] in self.checkMemory() }
        restartTimer = LoopTimer { [unowned self] in self.spawn() }
    }

    public var status: WorkerPoolStatus {
        WorkerPoolStatus(
            ready: workers.count { $0.isReady && !$0.isRetiring },
            starting: workers.count { !$0.isReady } + (isStarting ? 1 : 0),
            busy: workers.count { !$0.inFlight.isEmpty }, queued: queue.count, restarts: restarts,
            pids: workers.map(\.pid), failure: startFailure?.message)
    }

    // MARK: Calling

    /// Calls run() on a worker, waiting for one when all are busy or none is up yet.
    public func answer(_ id: InvocationID, _ input: WorkerInput) -> Eventual<Result<WorkerAnswer, InvocationFailure>> {
        guard !isStopping else { return .now(.failure(WorkerFailure.stopping())) }
        if let startFailure {
            let elapsed = monotonicNanoseconds() - lastStart
            if isStarting || elapsed < WorkerPoolSettings.retryStartAfter.wholeNanoseconds {
                return .now(.failure(startFailure))
            }
            start()
        }
        guard queue.count < settings.queueLimit else {
            return .now(.failure(WorkerFailure.queueFull(settings.queueLimit)))
        }
        return .pending(PendingCall(id: id, input: input, waitedForStart: report == nil, pool: self))
    }

    func begin(_ call: PendingCall) {
        if queue.isEmpty, let worker = idlest() { send(call, to: worker) } else { queue.append(call) }
    }

    /// Waits until the script is known, or cannot be started.
    public func waitForReport() async throws(InvocationFailure) -> ScriptReport {
        if let report { return report }
        if startFailure != nil {
            if !isStarting, monotonicNanoseconds() - lastStart >= WorkerPoolSettings.retryStartAfter.wholeNanoseconds {
                start()
            }
        }
        if let startFailure, !isStarting { throw startFailure }
        await settled.wait()
        if let report { return report }
        throw startFailure ?? WorkerFailure.stopping()
    }

    private func idlest() -> WorkerProcess? {
        var best: WorkerProcess?
        for worker in workers where worker.isReady && !worker.isRetiring && worker.inFlight.count < worker.depth {
            if worker.inFlight.count < best?.inFlight.count ?? .max { best = worker }
        }
        return best
    }

    private func send(_ call: PendingCall, to worker: WorkerProcess) {
        worker.send(call)
        if let timeout = settings.timeout, deadlineTimer?.isActive == false { deadlineTimer?.start(after: timeout) }
        if bundle.resources.memoryBytes != nil, memoryTimer?.isActive == false {
            memoryTimer?.start(after: WorkerPoolSettings.memoryInterval, every: WorkerPoolSettings.memoryInterval)
        }
    }

    private func sendQueued() {
        while !queue.isEmpty, let worker = idlest() { send(queue.removeFirst(), to: worker) }
    }

    // MARK: Starting

    /// Starts the first worker; the others follow when it is ready.
    public func start() {
        guard !isStarting, !isStopping, workers.isEmpty else { return }
        isStarting = true
        if settled.isOpen, report == nil { settled = Gate() }
        loopTask { [self] in await startFirst() }
    }

    private func startFirst() async {
        lastStart = monotonicNanoseconds()
        coldStart = ColdStart()
        change("starting", "environment")
        do throws(BundleError) {
            let python = try await environments.interpreter(for: bundle.dependencies, environment: settings.environment)
            coldStart.environment = Double(monotonicNanoseconds() - lastStart) / 1e6
            interpreter = python
            spawn()
        } catch {
            failStart(WorkerFailure.environment(error))
        }
    }

    private var interpreter = ""

    private func spawn() {
        guard !isStopping else { return settle() }
        let used = Set(indexes.values)
        let index = (0...).first { !used.contains($0) } ?? 0
        phaseStart = monotonicNanoseconds()
        change("starting", "spawn")
        do throws(SystemError) {
            let worker = try WorkerProcess(command: command(index: index), owner: self)
            indexes[ObjectIdentifier(worker)] = index
            workers.append(worker)
            worker.limitStart(to: settings.startTimeout)
        } catch {
            failStart(WorkerFailure.startFailed(error.message, remedy: nil, detail: nil))
        }
    }

    private func command(index: Int) -> ChildCommand {
        var environment = settings.environment
        environment.merge(bundle.environmentVariables) { $1 }
        environment["AML_APP_ROOT"] = bundle.sourceFolder
        environment["AZUREML_ENTRY_SCRIPT"] = bundle.entryScript
        environment["AZUREML_MODEL_DIR"] = settings.environment["AZUREML_MODEL_DIR"] ?? bundle.modelFolder
        environment["ANDIRON_HOST_PID"] = "\(getpid())"
        environment["ANDIRON_WORKER_INDEX"] = "\(index)"
        environment["PYTHONUNBUFFERED"] = "1"
        environment["ORT_DISABLE_TELEMETRY"] = "1"
        if let memory = bundle.resources.memoryBytes { environment["ANDIRON_WORKER_MEMORY_MB"] = "\(memory >> 20)" }
        if let cores = bundle.resources.cores {
            let whole = "\(Int(cores.rounded(.up)))"
            environment["ANDIRON_WORKER_CORES"] = whole
            for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"] where environment[name] == nil {
                environment[name] = whole
            }
        }
        return ChildCommand(
            executable: interpreter, arguments: [settings.workerProgram, bundle.entryScript, bundle.sourceFolder],
            environment: environment, folder: bundle.sourceFolder)
    }

    private func failStart(_ failure: InvocationFailure) {
        startFailure = failure
        report = nil
        change("failed", failure.message, level: .error, detail: failure.detail)
        settle()
        let waiting = queue
        queue = []
        for call in waiting { call.resolve(.failure(failure)) }
    }

    private func settle() {
        isStarting = false
        settled.open()
    }

    func worker(_ worker: WorkerProcess, entered phase: String) {
        let now = monotonicNanoseconds()
        let elapsed = Double(now - phaseStart) / 1e6
        if phase == "import" { coldStart.spawn = elapsed } else { coldStart.import = elapsed }
        phaseStart = now
        change("starting", phase)
    }

    func worker(_ worker: WorkerProcess, isReady bytes: [UInt8]) {
        coldStart.`init` = Double(monotonicNanoseconds() - phaseStart) / 1e6
        let json = try? JSONParser.parse(bytes)
        let documents = json?["swagger"]?.members ?? []
        report = ScriptReport(
            mode: json?["mode"]?.string.flatMap(ScriptMode.init) ?? .text,
            wantsHeaders: json?["wantsHeaders"]?.bool ?? false,
            swagger: Dictionary(documents.map { ($0.name, $0.value.string ?? "") }) { first, _ in first },
            python: json?["python"]?.string ?? "")
        worker.isReady = true
        startFailure = nil
        change("ready", "", pid: worker.pid)
        settle()
        sendQueued()
        if workers.count < settings.processCount, !isStopping { spawn() }
    }

    func worker(_ worker: WorkerProcess, failedInit report: [UInt8]) {
        worker.isRetiring = true
        worker.reasonForEnd = WorkerFailure.initFailed(report, bundle: bundle)
    }

    // MARK: Answers

    func worker(_ worker: WorkerProcess, finished call: PendingCall, _ result: WorkerResult) {
        failuresInARow = 0
        call.resolve(
            .success(WorkerAnswer(result: result, coldStart: call.waitedForStart ? coldStart : nil)))
        sendQueued()
        if quiet != nil { checkQuiet() }
    }

    func worker(_ worker: WorkerProcess, logged line: String, level: EventLevel, call: PendingCall?) {
        var fields: [(String, HostEvent.Value)] = [("function", .text(functionName))]
        if let call { fields.append(("invocation_id", .text("\(call.id)"))) }
        fields.append(("source", .text("user")))
        log.log(level, line, fields)
    }

    // MARK: Ends

    func worker(_ worker: WorkerProcess, ended exit: ChildExit) {
        // Whatever it started and left behind goes with it.
        worker.kill(nil)
        workers.removeAll { $0 === worker }
        indexes[ObjectIdentifier(worker)] = nil
        let reason = worker.reasonForEnd
        let (begun, untouched) = worker.abandonedCalls()
        let crash = reason ?? WorkerFailure.crashed(exit, lastLines: worker.lastLines, mayHaveRun: true)
        for call in begun { call.resolve(.failure(crash)) }
        for call in untouched.reversed() {
            call.returns += 1
            if call.returns > WorkerPoolSettings.returnLimit {
                let failure = reason ?? WorkerFailure.crashed(exit, lastLines: worker.lastLines, mayHaveRun: false)
                call.resolve(.failure(failure))
            } else {
                queue.prepend(call)
            }
        }
        if isStopping {
            if workers.isEmpty { emptied.open() }
            return
        }
        defer { if quiet != nil { checkQuiet() } }
        change("exited", "\(exit)", level: .warning, pid: worker.pid, detail: reason?.message)
        if !worker.isReady {
            let failure =
                reason
                ?? WorkerFailure.startFailed(
                    "the worker ended with \(exit) before it was ready", remedy: "look at the lines it printed",
                    detail: worker.lastLines.joined(separator: "\n"))
            if workers.isEmpty { return failStart(failure) }
        }
        replace()
    }

    /// Starts another worker, at once after a first failure, then after longer and longer pauses.
    private func replace() {
        restarts += 1
        failuresInARow += 1
        if workers.contains(where: { !$0.isReady }) { return }
        if failuresInARow <= 1 {
            spawn()
        } else if restartTimer?.isActive == false {
            let pause = min(.milliseconds(250) * (1 << min(failuresInARow - 2, 10)), WorkerPoolSettings.backOffLimit)
            restartTimer?.start(after: pause)
        }
    }

    private func checkDeadlines() {
        guard let timeout = settings.timeout else { return }
        let now = monotonicNanoseconds()
        var next = UInt64.max
        for worker in workers where !worker.inFlight.isEmpty {
            let deadline = worker.busySince + timeout.wholeNanoseconds
            if deadline <= now {
                worker.kill(WorkerFailure.timedOut(timeout, name: settings.timeoutName))
            } else {
                next = min(next, deadline)
            }
        }
        if next != .max { deadlineTimer?.start(after: .nanoseconds(Int64(next - now))) }
    }

    private func checkMemory() {
        guard let limit = bundle.resources.memoryBytes else { return }
        for worker in workers {
            let used = worker.residentByteCount
            if used > limit { worker.kill(WorkerFailure.overMemory(limit, used: used)) }
        }
        if workers.allSatisfy({ $0.inFlight.isEmpty }) { memoryTimer?.stop() }
    }

    /// Lets what is in flight or queued finish, then ends all workers.
    public func stop() async {
        guard !isStopping else { return await emptied.wait() }
        let quiet = Gate()
        self.quiet = quiet
        checkQuiet()
        await quiet.wait()
        isStopping = true
        restartTimer?.stop()
        for call in queue { call.resolve(.failure(WorkerFailure.stopping())) }
        queue = []
        settle()
        if workers.isEmpty { emptied.open() }
        for worker in workers { worker.isReady ? worker.stop() : worker.kill(nil) }
        let timer = LoopTimer { [unowned self] in for worker in workers { worker.kill(nil) } }
        timer.start(after: WorkerPoolSettings.stopTimeout)
        await emptied.wait()
        timer.stop()
        deadlineTimer?.stop()
        memoryTimer?.stop()
    }

    private func checkQuiet() {
        if queue.isEmpty ? workers.allSatisfy(\.inFlight.isEmpty) : workers.isEmpty && !isStarting { quiet?.open() }
    }

    /// Ends all workers at once.
    public func kill() {
        isStopping = true
        for worker in workers { worker.kill(nil) }
    }

    private func change(
        _ state: String, _ note: String, level: EventLevel = .debug, pid: Int32? = nil, detail: String? = nil
    ) {
        var fields: [(String, HostEvent.Value)] = [("function", .text(functionName)), ("state", .text(state))]
        if let pid { fields.append(("pid", .integer(Int(pid)))) }
        if !note.isEmpty { fields.append(("note", .text(note))) }
        if state == "ready" {
            for phase in coldStart.phases { fields.append(("\(phase.name)_ms", .number(phase.milliseconds))) }
        }
        if let detail { fields.append(("detail", .text(detail))) }
        log(HostEvent(.workerStateChanged, level, "worker \(state)", fields))
    }
}
