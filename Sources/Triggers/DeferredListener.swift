/// A listener whose source cannot be opened yet: it is tried again until it can.
public import Diagnostics
public import EventLoops

/// Stands in for a listener, and makes it as soon as that works. Other listeners are not held up.
@EventLoop
public final class DeferredListener: TriggerListener {
    public let source: String
    public var failure: (any HostError)? { ownFailure ?? listener?.failure }
    private var ownFailure: (any HostError)?
    /// The listener itself, once it is there.
    public private(set) var listener: (any TriggerListener)?
    private let make: @EventLoop () throws -> any TriggerListener
    private let functionName: String
    private let log: EventLog
    private var timer: LoopTimer?

    /// How often it is tried.
    static let interval = Duration.seconds(5)

    /// - Parameter make: throws a ``HostError`` while the source cannot be had.
    public init(
        source: String, functionName: String, log: EventLog, make: @escaping @EventLoop () throws -> any TriggerListener
    ) {
        self.source = source
        self.functionName = functionName
        self.log = log
        self.make = make
        timer = LoopTimer { [unowned self] in self.start() }
    }

    public func start() {
        if listener == nil {
            do {
                listener = try make()
                if ownFailure != nil {
                    log.log(.information, "\(source) works now", [("function", .text(functionName))])
                }
                ownFailure = nil
            } catch {
                let known = error as? any HostError
                if ownFailure?.message != known?.message {
                    log(
                        HostEvent(
                            .log, .error, known?.description ?? "\(error)",
                            [("function", .text(functionName)), ("code", .text(known?.code ?? ""))]))
                }
                ownFailure = known
                timer?.start(after: Self.interval)
            }
        }
        listener?.start()
    }

    public func abandonUnfinished() { listener?.abandonUnfinished() }

    public func stop() async {
        timer?.stop()
        await listener?.stop()
    }
}
