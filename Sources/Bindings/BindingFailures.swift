/// What a binding's own errors become: the failure of the invocation that needed it.
internal import Diagnostics
internal import EventLoops
internal import Invocations

extension InvocationFailure {
    /// An error of the service a binding uses.
    convenience init(_ error: some HostError, binding: String) {
        self.init(
            code: error.code, fault: error.fault, message: "binding '\(binding)': \(error.message)",
            remedy: error.remedy)
    }
}

extension BindingTemplate {
    /// The template's text for an invocation; an expression without a value is the function's mistake.
    @EventLoop
    func text(
        for invocation: Invocation, _ data: BindingData, binding: String
    ) throws(InvocationFailure) -> String {
        do throws(BindingTemplateError) {
            return try resolve(data, functionName: invocation.functionName)
        } catch {
            throw InvocationFailure(
                code: "AN7010", fault: .user, message: "binding '\(binding)': \(error.message)",
                remedy: "names come from the trigger: its pattern, its JSON properties, or sys, rand-guid, DateTime")
        }
    }
}
