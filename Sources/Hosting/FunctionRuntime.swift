/// One function that is loaded: its metadata, its way to results, its numbers.
internal import Bindings
public import EventLoops
public import Invocations
public import Scoring

/// What decides whether a function can be kept over a reload.
struct RuntimeKey: Equatable {
    let entryPoint: EntryPoint
    let usesCache: Bool?
    let features: FeatureSource?
    let timeout: Duration?
    let processCount: Int
    /// The settings workers see; a change of them recycles the workers.
    let settings: SHA256Digest
}

/// A loaded function; ``stop()`` ends its workers.
@EventLoop
public final class FunctionRuntime {
    public internal(set) var metadata: FunctionMetadata
    public let metrics: FunctionMetrics
    /// The entry script, or nil for what is built in.
    public let python: PythonScorer?
    let pipeline: ScoringPipeline
    let key: RuntimeKey
    /// Bindings other than HTTP; nil when there are none.
    var bindings: FunctionBindings?

    init(
        metadata: FunctionMetadata, metrics: FunctionMetrics, python: PythonScorer?, pipeline: ScoringPipeline,
        key: RuntimeKey
    ) {
        self.metadata = metadata
        self.metrics = metrics
        self.python = python
        self.pipeline = pipeline
        self.key = key
    }

    func stop() async { await python?.stop() }
}
