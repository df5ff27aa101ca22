/// The listeners of a running app, one per function whose trigger is not HTTP: begun, kept, replaced, ended.
internal import Diagnostics
internal import EventLoops
internal import Triggers

/// Starts and stops listeners; a function that has not changed keeps its own over a reload.
@EventLoop
final class ListenerTable {
    private struct Entry {
        let key: String
        let listener: any TriggerListener
    }

    private var entries: [String: Entry] = [:]
    private var isListening = true
    private var retiring: [String: Gate] = [:]
    private let log: EventLog

    init(log: EventLog) { self.log = log }

    /// The listener of a function; nil for HTTP functions and those switched off.
    func listener(of function: String) -> (any TriggerListener)? { entries[function]?.listener }

    /// The functions that listen, in order of their names.
    var functionNames: [String] { entries.keys.sorted() }

    /// Puts the listeners of an app to work.
    ///
    /// - Parameter wanted: the name of each function with a listener, what its listener depends on, and how to make it.
    func update(_ wanted: [(name: String, key: String, make: @EventLoop () -> (any TriggerListener)?)]) {
        let names = Set(wanted.map(\.name))
        for name in entries.keys where !names.contains(name) { retire(name) }
        for (name, key, make) in wanted where entries[name]?.key != key {
            retire(name)
            guard let listener = make() else { continue }
            entries[name] = Entry(key: key, listener: listener)
            guard isListening else { continue }
            // The one before it first settles what it has begun: no event is taken by both.
            guard let gate = retiring[name] else {
                listener.start()
                continue
            }
            loopTask { [self] in
                await gate.wait()
                if isListening, entries[name]?.listener === listener { listener.start() }
            }
        }
    }

    private func retire(_ name: String) {
        guard let entry = entries.removeValue(forKey: name) else { return }
        let before = retiring[name]
        let gate = Gate()
        retiring[name] = gate
        loopTask { [self] in
            await before?.wait()
            await entry.listener.stop()
            if retiring[name] === gate { retiring[name] = nil }
            gate.open()
        }
    }

    /// Takes no more events; returns when everything begun is settled.
    func stop() async {
        isListening = false
        let done = Gate()
        var left = entries.count + retiring.count
        if left == 0 { return }
        let finished = { @EventLoop in
            left -= 1
            if left == 0 { done.open() }
        }
        for gate in retiring.values {
            loopTask {
                await gate.wait()
                finished()
            }
        }
        for entry in entries.values {
            loopTask {
                await entry.listener.stop()
                finished()
            }
        }
        await done.wait()
    }

    /// Time is up: what still runs goes back to where it came from.
    func abandonUnfinished() {
        for entry in entries.values { entry.listener.abandonUnfinished() }
    }

    /// Listens again after ``stop()``.
    func resume() {
        guard !isListening else { return }
        isListening = true
        for entry in entries.values { entry.listener.start() }
    }
}
