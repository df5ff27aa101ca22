/// `andiron group` and `andiron appservice plan`.
import ArgumentParser
import ConfigurationFiles
import Glibc
import JSONText
import Resources

/// Name and group of a resource that exists.
struct NamedResource: ParsableArguments {
    @Option(name: [.short, .long], help: "The name.")
    var name: String

    @Option(name: [.customShort("g"), .customLong("resource-group")], help: "The resource group.")
    var group: String?
}

/// Name, group and place of a resource that is to be created.
struct NewResourceOptions: ParsableArguments {
    @Option(name: [.short, .long], help: "The name.")
    var name: String

    @Option(name: [.customShort("g"), .customLong("resource-group")], help: "The resource group.")
    var group: String

    @Option(name: [.short, .long], help: "The location; any word.")
    var location: String?
}

/// Asks before something is deleted; `--yes` answers.
struct Confirmation: ParsableArguments {
    @Flag(name: [.short, .long], help: "Do not ask.")
    var yes = false

    /// - Parameter word: what must be typed; nil is y or n.
    func confirm(_ question: String, word: String? = nil) throws(ResourceError) {
        if yes { return }
        guard isatty(0) == 1 else {
            throw .argument("Unable to prompt for confirmation as no tty available. Use --yes.", remedy: "--yes")
        }
        complain(question)
        let answer = readLine() ?? ""
        let isYes = word.map { $0 == answer } ?? ["y", "yes"].contains(answer.lowercased())
        if !isYes { throw .argument("Operation cancelled.", remedy: nil) }
    }
}

struct Group: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Resource groups.",
        subcommands: [GroupCreate.self, GroupList.self, GroupShow.self, GroupDelete.self, GroupExists.self])
}

struct GroupCreate: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "create", abstract: "Create a resource group.")

    @OptionGroup var asked: GroupName

    @Option(name: [.short, .long], help: "The location; any word.")
    var location: String

    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            try ResourceKind.group.check(asked.name)
            let group = NewResource.group(asked.name, location: location)
            try resourceStore().update { document throws(ResourceError) in document.put(.group, group) }
            output.show(group)
        }
    }
}

struct GroupList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The resource groups.")
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in output.show(.list(try resourceStore().read().all(.group))) }
    }
}

struct GroupShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One resource group.")
    @OptionGroup var asked: GroupName
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in output.show(try resourceStore().read().find(.group, asked.name)) }
    }
}

struct GroupExists: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "exists", abstract: "Print true or false.")
    @OptionGroup var asked: GroupName

    func run() throws {
        reporting { () throws(ResourceError) in
            let document = try resourceStore().read()
            andiron.output(Array("\((try? document.find(.group, asked.name)) != nil)\n".utf8))
        }
    }
}

struct GroupDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete a resource group and all in it; asks for its name.")
    @OptionGroup var asked: GroupName
    @OptionGroup var confirmation: Confirmation
    @Flag(help: "Accepted; deleting takes no time here.")
    var noWait = false

    func run() throws {
        reporting { () throws(ResourceError) in
            let store = resourceStore()
            let found = try store.read().find(.group, asked.name)
            let name = found["name"]?.string ?? asked.name
            try confirmation.confirm(
                "This deletes the resource group '\(name)' and all in it. Type its name to go on:", word: name)
            var folders: [String] = []
            try store.update { document throws(ResourceError) in
                let isIn = { (value: JSONValue) in
                    value["resourceGroup"]?.string?.caseInsensitiveEquals(name) == true
                }
                folders = document.all(.functionApp).filter(isIn).compactMap { $0["folder"]?.string }
                for kind in ResourceKind.allCases where kind != .model { document.remove(kind, where: isIn) }
                document.remove(.group) { $0["name"]?.string?.caseInsensitiveEquals(name) == true }
            }
            for folder in folders where folder.hasPrefix(store.folder + "/apps/") { removeFolderTree(folder) }
        }
    }
}

struct AppService: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "appservice", abstract: "App Service plans.", subcommands: [Plan.self])
}

struct Plan: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "App Service plans.",
        subcommands: [PlanCreate.self, PlanList.self, PlanShow.self, PlanDelete.self])
}

struct PlanCreate: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "create", abstract: "Create a plan.")
    @OptionGroup var resource: NewResourceOptions
    @Option(help: "B1, S1, P1V2, …")
    var sku = "B1"
    @Flag(help: "Linux workers; there are no others here.")
    var isLinux = false
    @Option(help: "Number of workers.")
    var numberOfWorkers = 1
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            try ResourceKind.plan.check(resource.name)
            let plan = try resourceStore().update { document throws(ResourceError) in
                let plan = NewResource.plan(
                    resource.name, group: resource.group,
                    location: try document.location(resource.group, resource.location), sku: sku, isLinux: isLinux,
                    workers: numberOfWorkers)
                document.put(.plan, plan)
                return plan
            }
            output.show(plan)
        }
    }
}

struct PlanList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The plans.")
    @OptionGroup var filter: GroupFilter
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in try filter.show(.plan, output) }
    }
}

struct PlanShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One plan.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var output: ResourceOutput

    func run() throws { showResource(.plan, resource, output) }
}

struct PlanDelete: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "delete", abstract: "Delete a plan.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var confirmation: Confirmation

    func run() throws { deleteResource(.plan, resource, confirmation) }
}

extension ParsableCommand {
    func showResource(_ kind: ResourceKind, _ resource: NamedResource, _ output: ResourceOutput) {
        reporting { () throws(ResourceError) in
            output.show(try resourceStore().read().find(kind, resource.name, in: resource.group))
        }
    }

    func deleteResource(_ kind: ResourceKind, _ resource: NamedResource, _ confirmation: Confirmation) {
        reporting { () throws(ResourceError) in
            let store = resourceStore()
            let found = try store.read().find(kind, resource.name, in: resource.group)
            try confirmation.confirm("Are you sure you want to delete '\(resource.name)'? (y/n):")
            try store.update { document throws(ResourceError) in
                document.remove(kind) { $0["id"]?.string == found["id"]?.string }
            }
            if let folder = found["folder"]?.string, folder.hasPrefix(store.folder + "/apps/") {
                removeFolderTree(folder)
            }
        }
    }
}
