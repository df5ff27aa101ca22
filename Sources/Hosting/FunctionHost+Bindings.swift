/// Which listener and which bindings a function gets: the one place that knows all kinds.
internal import Bindings
internal import Diagnostics
internal import EventLoops
internal import Invocations
internal import JSONText
internal import Triggers

extension FunctionHost {
    /// Puts a listener to work for every function whose trigger is not HTTP.
    func updateListeners() {
        var wanted: [(name: String, key: String, make: @EventLoop () -> (any TriggerListener)?)] = []
        for runtime in runtimes where !runtime.metadata.isDisabled {
            let function = runtime.metadata
            guard let trigger = function.bindings.first(where: \.isTrigger), trigger.type.lowercased() != "httptrigger"
            else { continue }
            wanted.append(
                (function.name, listenerKey(trigger), { [unowned self] in makeListener(of: function, trigger) }))
        }
        listeners.update(wanted)
    }

    /// What a listener depends on: when it has not changed, the listener goes on over a reload.
    private func listenerKey(_ trigger: BindingMetadata) -> String {
        var writer = JSONWriter()
        writer.value(trigger.properties)
        return String(decoding: writer.bytes, as: UTF8.self)
    }

    private func makeListener(of function: FunctionMetadata, _ trigger: BindingMetadata) -> (any TriggerListener)? {
        switch trigger.type.lowercased() {
        default: nil
        }
    }

    /// Gives each function its input and output bindings other than HTTP.
    func connectBindings() {
        for runtime in runtimes {
            let function = runtime.metadata
            var inputs: [any InputBinding] = []
            var outputs: [any OutputBinding] = []
            for binding in function.bindings where !binding.isTrigger {
                if binding.direction != .out, let input = makeInput(binding, function) { inputs.append(input) }
                if binding.direction != .in, let output = makeOutput(binding, function) { outputs.append(output) }
            }
            let hasReturn = function.bindings.contains { $0.name == "$return" }
            runtime.bindings =
                inputs.isEmpty && outputs.isEmpty
                ? nil : FunctionBindings(inputs: inputs, outputs: outputs, hasReturn: hasReturn)
        }
    }

    private func makeInput(_ binding: BindingMetadata, _ function: FunctionMetadata) -> (any InputBinding)? {
        switch binding.type.lowercased() {
        default: nil
        }
    }

    private func makeOutput(_ binding: BindingMetadata, _ function: FunctionMetadata) -> (any OutputBinding)? {
        switch binding.type.lowercased() {
        default: nil
        }
    }
}
