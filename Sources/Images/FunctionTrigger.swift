/// What starts a packaged function, with the words and the checks of azureml-contrib-functions.
internal import JSONText

/// A trigger and its options.
public enum FunctionTrigger: Sendable, Equatable {
    /// `auth_level`: anonymous, function or admin.
    case http(authLevel: String?)
    case blob(inputPath: String?, outputPath: String?)
    case serviceBusQueue(inputQueueName: String?, outputQueueName: String?)

    /// The app setting with the connection string of a blob or Service Bus trigger.
    public static let connectionSetting = "TriggerConnectionString"

    /// Makes a trigger of its name and options.
    ///
    /// - Throws: AN9014 for an unknown name, or an option the trigger does not have.
    public init(_ name: String, options: [String: String]) throws(ImageError) {
        let allowed: [String]
        switch name {
        case "http":
            allowed = ["auth_level"]
            self = .http(authLevel: options["auth_level"])
        case "blob":
            allowed = ["input_path", "output_path"]
            self = .blob(inputPath: options["input_path"], outputPath: options["output_path"])
        case "service_bus_queue":
            allowed = ["input_queue_name", "output_queue_name"]
            self = .serviceBusQueue(
                inputQueueName: options["input_queue_name"], outputQueueName: options["output_queue_name"])
        default:
            throw ImageError(
                .package, image: "", step: "",
                "Invalid trigger \(name), valid options are [blob,service_bus_queue,http]")
        }
        if let other = options.keys.sorted().first(where: { !allowed.contains($0) }) {
            throw ImageError(.package, image: "", step: "", "Invalid option \(other) for trigger \(name)")
        }
        if let level = options["auth_level"], !["anonymous", "function", "admin"].contains(level.lowercased()) {
            throw ImageError(
                .package, image: "", step: "", "Invalid option auth_level '\(level)' for trigger http",
                remedy: "anonymous, function or admin")
        }
    }

    /// The wire form of the packaging service, `deployedApiOptions`.
    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("flavor", "functionsApp")
        func optional(_ name: String, _ value: String?) { if let value { writer.member(name, value) } }
        switch self {
        case .http(let level):
            writer.member("trigger", "Http")
            optional("authLevel", level)
        case .blob(let input, let output):
            writer.member("trigger", "Blob")
            optional("inPath", input)
            optional("outPath", output)
        case .serviceBusQueue(let input, let output):
            writer.member("trigger", "ServiceBusQueue")
            optional("inQueueName", input)
            optional("outQueueName", output)
        }
        writer.endObject()
    }

    /// `function.json` of the function, whose bundle lies where Azure ML puts it.
    func functionFile() -> [UInt8] {
        jsonObject { writer in
            writer.member("scriptFile", "__init__.py")
            writer.member("bundle", "../../../../var/azureml-app")
            writer.name("bindings")
            writer.beginArray()
            func binding(_ name: String, _ type: String, _ direction: String, _ more: [(String, String)]) {
                writer.beginObject()
                writer.member("name", name)
                writer.member("type", type)
                writer.member("direction", direction)
                for (key, value) in more { writer.member(key, value) }
                writer.endObject()
            }
            let connection = ("connection", Self.connectionSetting)
            switch self {
            case .http(let level):
                binding("req", "httpTrigger", "in", [("authLevel", level?.lowercased() ?? "function")])
                binding("$return", "http", "out", [])
            case .blob(let input, let output):
                binding("input", "blobTrigger", "in", [("path", input ?? "input/{blobname}"), connection])
                binding("$return", "blob", "out", [("path", output ?? "output/{blobname}"), connection])
            case .serviceBusQueue(let input, let output):
                binding("message", "serviceBusTrigger", "in", [("queueName", input ?? "input"), connection])
                binding("$return", "serviceBus", "out", [("queueName", output ?? "output"), connection])
            }
            writer.endArray()
        } + [0x0A]
    }
}
