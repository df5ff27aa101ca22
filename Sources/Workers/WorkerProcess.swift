/// One worker process: its frames, its output, and what it is busy with.
internal import Diagnostics
internal import EventLoops
internal import Glibc
internal import Invocations
internal import DequeModule

/// What a worker tells its pool.
@EventLoop
protocol WorkerProcessOwner: AnyObject {
    func worker(_ worker: WorkerProcess, isReady report: [UInt8])
    func worker(_ worker: WorkerProcess, failedInit report: [UInt8])
    func worker(_ worker: WorkerProcess, entered phase: String)
    func worker(_ worker: WorkerProcess, finished call: PendingCall, _ result: WorkerResult)
    func worker(_ worker: WorkerProcess, logged line: String, level: EventLevel, call: PendingCall?)
    func worker(_ worker: WorkerProcess, ended exit: ChildExit)
}

/// Runs until its process ends; the pool keeps it until then.
@EventLoop
final class WorkerProcess: ByteStreamReader {
    /// Why the host ended it, when the host did.
    var reasonForEnd: InvocationFailure?
    /// Set once the worker can take calls.
    var isReady = false {
        didSet { startTimer = nil }
    }
    /// Set when it shall take no more calls.
    var isRetiring = false
    /// Last lines of its standard error, for the report of a crash.
    private(set) var lastLines: [String] = []
    /// When the oldest call in flight began, on the monotonic clock.
    private(set) var busySince: UInt64 = 0
    /// Calls sent and not answered, oldest first.
    private(set) var inFlight: Deque<(request: UInt32, call: PendingCall)> = []
    /// Moving average of the time run() takes.
    private var averageNanoseconds: UInt64 = 1_000_000
    /// Answered calls.
    private(set) var answered = 0

    private let process: ChildProcess
    private let channel: ByteStream
    private unowned let owner: any WorkerProcessOwner
    private let running: SharedWord
    private var frames = WorkerFrameReader()
    private var nextRequest: UInt32 = 0
    private var isBroken = false
    private var outputs: [LineReader] = []

    /// Calls a fast script may have in flight; a slow one has two, so that the next is there when one ends.
    static let depthLimit = 64
    /// What calls in flight may take together.
    private static let depthNanoseconds: UInt64 = 2_000_000
    private static let keptLines = 20

    init(command: ChildCommand, owner: any WorkerProcessOwner) throws(SystemError) {
        var command = command
        running = try SharedWord()
        command.hasChannel = true
        command.inheritedDescriptor = running.descriptor
        process = try ChildProcess(command)
        guard let channel = process.channel else { throw SystemError(errno: EBADF, call: "socketpair") }
        self.channel = channel
        self.owner = owner
        channel.setSocketBuffers(byteCount: 1 << 20)
        channel.startReading(to: self)
        readOutput(process.standardOutput, level: .information)
        readOutput(process.standardError, level: .warning)
        loopTask { [self] in
            let exit = await process.waitForExit()
            await channelEnded.wait()
            owner.worker(self, ended: exit)
        }
    }

    private let channelEnded = Gate()
    private var startTimer: LoopTimer?

    /// Ends it when it is not ready in time.
    func limitStart(to limit: Duration) {
        startTimer = LoopTimer { [unowned self] in
            kill(WorkerFailure.startFailed("init() took longer than \(limit.inSeconds) s", remedy: nil, detail: nil))
        }
        startTimer?.start(after: limit)
    }

    var pid: Int32 { process.pid }

    /// How many calls it should have in flight at most.
    var depth: Int {
        min(Self.depthLimit, 2 + Int(Self.depthNanoseconds / max(averageNanoseconds, 1)))
    }

    private func readOutput(_ stream: ByteStream, level: EventLevel) {
        let reader = LineReader { [unowned self] line in
            if level == .warning {
                lastLines.append(line)
                if lastLines.count > Self.keptLines { lastLines.removeFirst() }
            }
            owner.worker(self, logged: line, level: level, call: nil)
        }
        outputs.append(reader)
        stream.startReading(to: reader)
    }

    // MARK: Calls

    func send(_ call: PendingCall) {
        nextRequest = nextRequest == .max ? 1 : nextRequest + 1
        if inFlight.isEmpty { busySince = monotonicNanoseconds() }
        inFlight.append((nextRequest, call))
        switch call.input {
        case .body(let body):
            channel.output { appendFrameHeader(.invoke, request: nextRequest, payloadLength: body.count, to: &$0) }
            channel.write(body)
        case .request(let parts):
            let head = parts.head
            channel.output { bytes in
                appendFrameHeader(
                    .invokeHTTP, request: nextRequest, payloadLength: 4 + head.count + parts.body.count, to: &bytes)
                withUnsafeBytes(of: UInt32(head.count).littleEndian) { bytes.append(contentsOf: $0) }
                bytes.append(contentsOf: head)
            }
            channel.write(parts.body)
        }
    }

    /// The calls a dead worker leaves: those it had begun, and those it had not.
    func abandonedCalls() -> (begun: [PendingCall], untouched: [PendingCall]) {
        let current = running.value
        let calls = Array(inFlight)
        inFlight = []
        // A worker that broke the protocol had begun something, whatever it says now.
        let running = calls.firstIndex { $0.request == current } ?? (isBroken && !calls.isEmpty ? 0 : nil)
        guard let index = running else { return ([], calls.map(\.call)) }
        return (calls[...index].map(\.call), calls[(index + 1)...].map(\.call))
    }

    // MARK: Ending

    /// Asks it to finish what it has and exit.
    func stop() {
        isRetiring = true
        channel.output { appendFrameHeader(.stop, request: 0, payloadLength: 0, to: &$0) }
    }

    /// Ends it and everything it started.
    func kill(_ reason: InvocationFailure?) {
        if reasonForEnd == nil { reasonForEnd = reason }
        isRetiring = true
        startTimer = nil
        process.kill(signal: SIGKILL)
    }

    /// Resident memory in bytes, or 0 when it cannot be read.
    var residentByteCount: Int {
        var buffer = [UInt8](repeating: 0, count: 128)
        let descriptor = open("/proc/\(pid)/statm", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return 0 }
        defer { close(descriptor) }
        let count = read(descriptor, &buffer, buffer.count)
        guard count > 0 else { return 0 }
        let fields = String(decoding: buffer[..<count], as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE))) : 0
    }

    // MARK: Frames

    func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        // Behind something that is no frame nothing can be trusted.
        guard !isBroken else { return }
        do throws(WorkerFrameError) {
            try frames.feed(bytes) { frame in if !self.isBroken { self.receive(frame) } }
        } catch {
            breakOff(error.reason)
        }
    }

    private func breakOff(_ reason: String) {
        isBroken = true
        kill(WorkerFailure.protocolBroken(reason))
    }

    func streamDidEnd(_ error: SystemError?) { channelEnded.open() }

    private func receive(_ frame: WorkerFrame) {
        switch frame {
        case .ready(let report): owner.worker(self, isReady: report)
        case .initFailed(let report): owner.worker(self, failedInit: report)
        case .phase(let name): owner.worker(self, entered: name)
        case .log(let request, let level, let line):
            owner.worker(self, logged: line, level: level, call: inFlight.first { $0.request == request }?.call)
        case .result(let request, let result):
            guard let first = inFlight.first, first.request == request else {
                return breakOff("a result for request \(request), which is not the oldest")
            }
            inFlight.removeFirst()
            answered += 1
            if !inFlight.isEmpty { busySince = monotonicNanoseconds() }
            averageNanoseconds = (averageNanoseconds * 7 + result.runNanoseconds) / 8
            owner.worker(self, finished: first.call, result)
        }
    }
}

/// Splits a stream into lines; a line past the limit is cut.
@EventLoop
private final class LineReader: ByteStreamReader {
    static let lineByteLimit = 16384
    private let deliver: @EventLoop (String) -> Void
    private var pending: [UInt8] = []

    init(_ deliver: @escaping @EventLoop (String) -> Void) { self.deliver = deliver }

    func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes {
            if byte == 0x0A {
                flush()
            } else if pending.count < Self.lineByteLimit {
                pending.append(byte)
            }
        }
    }

    func streamDidEnd(_ error: SystemError?) { if !pending.isEmpty { flush() } }

    private func flush() {
        deliver(String(decoding: pending, as: UTF8.self))
        pending.removeAll(keepingCapacity: true)
    }
}
