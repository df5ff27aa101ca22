/// One call of run() on its way to a worker and back.
internal import EventLoops
internal import Diagnostics
internal import HTTPMessages
internal import Invocations
internal import JSONText

/// What to call run() with.
public enum WorkerInput: Sendable {
    /// A POST body, for scripts that ask for nothing else.
    case body([UInt8])
    /// A whole request.
    case request(RequestParts)
}

/// The parts of a request a script may look at.
public struct RequestParts: Sendable {
    public var method: String
    public var path: String
    public var query: String?
    public var headers: [(name: String, value: String)]
    public var body: [UInt8]

    public init(
        method: String, path: String, query: String?, headers: [(name: String, value: String)], body: [UInt8]
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
    }

    var head: [UInt8] {
        jsonObject { writer in
            writer.member("method", method)
            writer.member("path", path)
            writer.name("query")
            if let query { writer.string(query) } else { writer.null() }
            writer.name("headers")
            writer.beginArray()
            for header in headers {
                writer.beginArray()
                writer.string(header.name)
                writer.string(header.value)
                writer.endArray()
            }
            writer.endArray()
        }
    }
}

/// How long the parts of a cold start took, in milliseconds.
public struct ColdStart: Sendable {
    /// Making or finding the Python environment.
    public var environment = 0.0
    /// From starting the process to its first frame.
    public var spawn = 0.0
    /// Importing the entry script.
    public var `import` = 0.0
    /// Running init().
    public var `init` = 0.0

    /// Names and values in order.
    public var phases: [(name: String, milliseconds: Double)] {
        [("environment", environment), ("spawn", spawn), ("import", self.import), ("init", self.`init`)]
    }
}

/// The answer to a call.
public struct WorkerAnswer: Sendable {
    public let result: WorkerResult
    /// Set when the call had to wait for a worker to start.
    public let coldStart: ColdStart?
}

/// A call that waits, or is with a worker.
final class PendingCall: Pending<Result<WorkerAnswer, InvocationFailure>> {
    let id: InvocationID
    let input: WorkerInput
    /// Whether it came before any worker was ready.
    let waitedForStart: Bool
    /// How often a dead worker has given it back unstarted.
    var returns = 0
    private let pool: WorkerPool

    init(id: InvocationID, input: WorkerInput, waitedForStart: Bool, pool: WorkerPool) {
        self.id = id
        self.input = input
        self.waitedForStart = waitedForStart
        self.pool = pool
    }

    override func start() { pool.begin(self) }
}
