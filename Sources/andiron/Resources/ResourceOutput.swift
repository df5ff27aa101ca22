/// How commands about resources print: `--output json|table|tsv` and `--query`, as Azure's command line does.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import Images
import JSONText
import Resources

/// The options of every command about resources.
struct ResourceOutput: ParsableArguments {
    @Option(name: [.short, .long], help: "json, jsonc, table, tsv or none.")
    var output = "json"

    @Option(help: "What to print: a path such as name, [].name, passwords[0].value, or {a:x, b:y}.")
    var query: String?

    func validate() throws {
        guard ["json", "jsonc", "table", "tsv", "none"].contains(output) else {
            throw ValidationError("--output is '\(output)'; it is json, jsonc, table, tsv or none.")
        }
        if let query, ResourceQuery(query) == nil {
            throw ValidationError("--query is '\(query)'; a path such as [].name or {a:x, b:y} is understood.")
        }
    }

    /// Prints a value without its hidden members.
    func show(_ value: JSONValue) {
        var shown = value.withoutHidden
        if let query { shown = ResourceQuery(query)?.apply(shown) ?? .null }
        switch output {
        case "table": andironOutput(resourceTable(shown))
        case "tsv": andironOutput(resourceTSV(shown))
        case "none": break
        default: if !(shown.isNull && query != nil) { andironOutput(shown.indented()) }
        }
    }

    private func andironOutput(_ bytes: [UInt8]) { andiron.output(bytes) }
}

extension ParsableCommand {
    /// Runs `body` and ends the process with the error's code when it fails.
    func reporting(_ body: () throws(ResourceError) -> Void) {
        do throws(ResourceError) {
            try body()
        } catch {
            complain("\(error)")
            Glibc.exit(
                (error.code == "AN9021" ? ExitStatus.failed : error.fault == .host ? .cannotCreate : .badData).rawValue)
        }
    }
}

/// The local resources: `$ANDIRON_STATE`, else `$XDG_STATE_HOME/andiron`.
func resourceStore() -> ResourceStore {
    let environment = processEnvironment()
    if let state = environment["ANDIRON_STATE"], !state.isEmpty {
        return ResourceStore(folder: absolutePath(state, in: currentFolder()))
    }
    if let state = environment["XDG_STATE_HOME"], !state.isEmpty { return ResourceStore(folder: state + "/andiron") }
    return ResourceStore(folder: (environment["HOME"] ?? "/tmp") + "/.local/state/andiron")
}

/// The address of a registry that was made with `acr create`; nil when there is none of that name.
func loginServer(of name: String) -> String? {
    guard let document = try? resourceStore().read(), let registry = try? document.find(.registry, name) else {
        return nil
    }
    return registry["loginServer"]?.string
}

/// A registered model by `NAME` or `NAME:VERSION`.
func registeredModel(_ text: String) throws(ResourceError) -> PackagedModel {
    guard let reference = ModelReference(text) else {
        throw .argument("'\(text)' is no name of a model", remedy: "NAME or NAME:VERSION")
    }
    let model = try resourceStore().model(reference)
    return PackagedModel(
        name: reference.name, version: "\(model["version"]?.integer ?? 0)", path: model["_path"]?.string ?? "")
}
