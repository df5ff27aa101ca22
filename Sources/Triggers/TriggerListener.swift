/// Triggers that are not HTTP: each function with one has a listener, which takes events and starts invocations.
public import Diagnostics
public import EventLoops

/// Listens to one function's source of events: a container, a queue.
///
/// A listener looks after itself: when its source fails it says so in ``failure`` and the log, and tries again; it
/// never stops another. It dispatches through the host's dispatcher, and gives each invocation a
/// ``Invocation/settlement`` that records what became of the event before the outcome is reported.
@EventLoop
public protocol TriggerListener: AnyObject {
    /// What it listens to, for people: `incoming/{name}`, a queue's name.
    var source: String { get }
    /// Why it cannot take events at the moment; nil when it can.
    var failure: (any HostError)? { get }
    /// Begins to take events; again after ``stop()``, too.
    func start()
    /// Takes no further events, and returns when those that it has started are settled.
    func stop() async
    /// The host cannot wait any longer: gives back what still runs, where the source has a word for that.
    func abandonUnfinished()
}

extension TriggerListener {
    public func abandonUnfinished() {}
}
