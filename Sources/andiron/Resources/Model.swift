/// `andiron model`: models under names with versions.
import ArgumentParser
import ConfigurationFiles
import EventLoops
import JSONText
import Resources

struct Model: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Register models under names with versions.",
        subcommands: [ModelRegister.self, ModelList.self, ModelShow.self, ModelDelete.self])
}

struct ModelRegister: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "register", abstract: "Register a file or a folder as the next version of a model.",
        discussion: """
            Examples:
              andiron model register --name sklearn_mnist --path sklearn_mnist_model.pkl --tag area=digits
            """)

    @Option(name: [.short, .long], help: "The model's name.")
    var name: String

    @Option(name: [.customShort("p"), .customLong("path"), .customLong("model-path")], help: "A file or a folder.")
    var path: String

    @Option(help: "key=value; again for more.")
    var tag: [String] = []

    @Option(help: "key=value that never changes; again for more.")
    var property: [String] = []

    @Option(name: [.short, .long], help: "What it is.")
    var description: String?

    @Option(help: "ScikitLearn, Onnx, …")
    var modelFramework: String?

    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            output.show(
                try resourceStore().registerModel(
                    name, path: absolutePath(path, in: currentFolder()), tags: try pairs(tag),
                    properties: try pairs(property), description: description, framework: modelFramework))
        }
    }

    private func pairs(_ texts: [String]) throws(ResourceError) -> [(String, String)] {
        var found: [(String, String)] = []
        for text in texts {
            guard let equals = text.firstIndex(of: "=") else {
                throw .argument("'\(text)' is not key=value", remedy: "--tag area=digits")
            }
            found.append((String(text[..<equals]), String(text[text.index(after: equals)...])))
        }
        return found
    }
}

struct ModelList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The registered models.")

    @Option(
        name: [.customShort("n"), .customLong("model-name"), .customLong("name")], help: "Only versions of this one.")
    var name: String?

    @Flag(help: "Only the newest version of each.")
    var latest = false

    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            var models = try resourceStore().read().all(.model).filter { name == nil || $0["name"]?.string == name }
            if latest {
                models = models.filter { model in
                    !models.contains {
                        $0["name"]?.string == model["name"]?.string
                            && ($0["version"]?.integer ?? 0) > (model["version"]?.integer ?? 0)
                    }
                }
            }
            output.show(.list(models))
        }
    }
}

struct ModelShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One registered model.")

    @Option(
        name: [.customShort("i"), .customLong("model-id"), .customShort("n"), .customLong("name")],
        help: "NAME or NAME:VERSION.")
    var name: String

    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            guard let reference = ModelReference(name) else {
                throw .argument("'\(name)' is no name of a model", remedy: "NAME or NAME:VERSION")
            }
            output.show(try resourceStore().model(reference))
        }
    }
}

struct ModelDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete a version, or all of a model.")

    @Option(
        name: [.customShort("i"), .customLong("model-id"), .customShort("n"), .customLong("name")],
        help: "NAME or NAME:VERSION.")
    var name: String

    func run() throws {
        reporting { () throws(ResourceError) in
            guard let reference = ModelReference(name) else {
                throw .argument("'\(name)' is no name of a model", remedy: "NAME or NAME:VERSION")
            }
            _ = try resourceStore().deleteModel(reference)
        }
    }
}
