/// Options that several commands share: which entries are listed, and how.
import ArgumentParser
import JSONText
import Resources

/// Narrows a list to one function.
struct FunctionFilter: ParsableArguments {
    @Option(help: "Only this function's.")
    var function: String?
}

/// A list as lines, or as JSON.
struct JSONChoice: ParsableArguments {
    @Flag(help: "As JSON.")
    var json = false
}

/// Narrows a list of resources to one group.
struct GroupFilter: ParsableArguments {
    @Option(name: [.customShort("g"), .customLong("resource-group")], help: "Only those of this group.")
    var group: String?

    /// Prints all resources of a kind.
    func show(_ kind: ResourceKind, _ output: ResourceOutput) throws(ResourceError) {
        output.show(.list(try resourceStore().read().all(kind, in: group)))
    }
}

/// Names a resource group, where it is the resource itself.
struct GroupName: ParsableArguments {
    @Option(
        name: [.customShort("n"), .customShort("g"), .customLong("name"), .customLong("resource-group")],
        help: "The name.")
    var name: String
}
