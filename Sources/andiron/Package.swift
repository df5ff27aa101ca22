/// `andiron package`: a model and its script become an image, in the words of azureml-contrib-functions.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import Images
import JSONText
import Resources

struct Package: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Package models, an entry script and a trigger as an image, and push it.",
        discussion: """
            Prints the location, registry/package@sha256:digest.

            Examples:
              andiron package --model sklearn_mnist:1 --entry-script score.py --conda-file env.yml \\
                --registry myregistry.azurecr.io --trigger http
              andiron package --model model.pkl --entry-script src/score.py --source-directory src --trigger blob \\
                --input-path 'input/{blobname}.json' --output-path 'output/{blobname}_out.json' --registry localhost:5000
            """)

    @Option(name: [.short, .long], help: "A registered model, NAME or NAME:VERSION, or a path; again for more.")
    var model: [String] = []

    @Option(help: "The entry script with init() and run().")
    var entryScript: String?

    @Option(help: "A folder that is packaged whole; the entry script lies in it.")
    var sourceDirectory: String?

    @Option(
        name: [.customLong("conda-file"), .customLong("requirements-file")],
        help: "A conda file, or a requirements file (.txt).")
    var dependencyFile: String?

    @Option(
        name: [.customLong("inference-config-file"), .customLong("ic")],
        help: "An inferenceconfig.json that says the above.")
    var inferenceConfigFile: String?

    @Option(
        name: [.customLong("deploy-config-file"), .customLong("dc")],
        help: "A deploymentconfig.json to go into the image.")
    var deployConfigFile: String?

    @Option(help: "A variable of the entry script's environment, NAME=value; again for more.")
    var environmentVariable: [String] = []

    @Option(help: "http, blob or service_bus_queue.")
    var trigger = "http"

    @Option(help: "http: anonymous, function or admin.")
    var authLevel: String?

    @Option(help: "blob: where inputs come from, container/name with {blobname}.")
    var inputPath: String?

    @Option(help: "blob: where outputs go.")
    var outputPath: String?

    @Option(help: "service_bus_queue: the queue to read.")
    var inputQueueName: String?

    @Option(help: "service_bus_queue: the queue to write.")
    var outputQueueName: String?

    @Option(help: "The function's name.")
    var functionName = "score"

    @Option(help: "The registry, host:port, or the name of one made with acr create.")
    var registry: String?

    @Option(help: "The repository.")
    var imageName: String?

    @Option(help: "The tag (default: the time, or the next number with --image-name).")
    var imageLabel: String?

    @Option(name: .customLong("base"), help: "An image in the same registry to append to; it is not downloaded.")
    var base: String?

    @Option(help: "oci or docker.")
    var format = "oci"

    @Flag(help: "Show the build.")
    var showOutput = false

    @Flag(inversion: .prefixedNo, help: "Push the image.")
    var push = true

    @OptionGroup var registryAccess: RegistryOptions

    func validate() throws {
        guard ["oci", "docker"].contains(format) else {
            throw ValidationError("--format is '\(format)'; it is oci or docker.")
        }
    }

    func run() throws {
        let command = self
        runLoop { await command.package() }
    }

    @EventLoop
    private func package() async -> ExitStatus {
        do throws(ImageError) {
            let package = try inputs()
            let address = try registryAddress()
            let repository = try ImageReference("\(address)/\(imageName ?? "package")")
            let store = ContentStore(cacheFolder: AppLocation.cacheFolder())
            let client = registryAccess.client(for: repository.registryHost, log: .discarding)
            var baseImage: PackageBase?
            if let base {
                let reference = try ImageReference(base)
                guard reference.domain == repository.domain else {
                    throw ImageError(
                        .package, image: base, step: "base", "the base must be in the registry \(repository.domain)",
                        remedy: "push it there first: skopeo copy")
                }
                baseImage = try await ImagePuller(store: store, client: client).inspect(reference)
            }
            let show = showOutput
            let base = baseImage
            let result = await offload { () -> Result<BuiltPackage, ImageError> in
                do throws(ImageError) {
                    return .success(
                        try PackageBuilder(store: store, package: package, base: base).build { line in
                            if show { complain(line) }
                        })
                } catch {
                    return .failure(error)
                }
            }
            let built = try result.get()
            let location = repository.with(digest: built.digest)
            if push {
                let tag = try await tag(repository, client)
                _ = try await client.push(
                    blobs: built.blobs, manifest: built.manifest, mediaType: built.mediaType,
                    to: [repository.with(tag: tag)]
                ) { descriptor, outcome in
                    if show { complain("\(descriptor.digest.short): \(outcome.rawValue)") }
                }
                if show { complain("Tag: \(tag)\nPackage creation Succeeded") }
            }
            output(Array("\(location.domain)/\(location.repository)@\(built.digest)\n".utf8))
            return .done
        } catch {
            complain("\(error)")
            return exitStatus(of: error)
        }
    }

    private func fail(_ reason: String, _ remedy: String? = nil) -> ImageError {
        ImageError(.package, image: "", step: "package", reason, remedy: remedy)
    }

    private func registryAddress() throws(ImageError) -> String {
        guard let registry else {
            throw fail("no registry is named", "--registry HOST:PORT, or the NAME of one made with andiron acr create")
        }
        return loginServer(of: registry) ?? registry
    }

    private func inputs() throws(ImageError) -> ModelPackage {
        let current = currentFolder()
        var script = entryScript.map { absolutePath($0, in: current) }
        var source = sourceDirectory.map { absolutePath($0, in: current) }
        var dependencies = dependencyFile.map { absolutePath($0, in: current) }
        var variables: [String: String] = [:]
        var inline: [UInt8]?
        if let path = inferenceConfigFile.map({ absolutePath($0, in: current) }) {
            guard let root = readFile(path, limit: 1 << 20).flatMap({ try? JSONParser.parse($0) }) else {
                throw fail("the inference configuration '\(path)' cannot be read as JSON")
            }
            let folder = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
            if let text = root["sourceDirectory"]?.string { source = source ?? absolutePath(text, in: folder) }
            if let text = root["entryScript"]?.string { script = script ?? absolutePath(text, in: source ?? folder) }
            let environment = root["environment"]
            let conda = environment?["python"]?["condaDependenciesFile"]?.string ?? root["condaFile"]?.string
            if let packages = environment?["python"]?["condaDependencies"], packages.members != nil {
                // JSON is YAML.
                var writer = JSONWriter()
                writer.value(packages)
                inline = dependencies == nil ? writer.bytes : nil
            } else if let conda {
                dependencies = dependencies ?? absolutePath(conda, in: folder)
            }
            for member in environment?["environmentVariables"]?.members ?? [] {
                variables[member.name] = member.value.string
            }
        }
        for text in environmentVariable {
            guard let equals = text.firstIndex(of: "="), equals != text.startIndex else {
                throw fail("the environment variable '\(text)' is not NAME=value")
            }
            variables[String(text[..<equals])] = String(text[text.index(after: equals)...])
        }
        guard let script else {
            throw fail("no entry script is named", "--entry-script score.py, or --inference-config-file")
        }
        // In a source folder, the script is named from there.
        let entry = source.flatMap {
            access("\($0)/\(entryScript ?? "")", R_OK) == 0 && entryScript != nil ? "\($0)/\(entryScript ?? "")" : nil
        }
        var package = ModelPackage(entryScript: entry ?? script)
        package.sourceFolder = source
        package.dependencyFile = dependencies
        package.dependencyText = inline
        package.environmentVariables = variables
        package.functionName = functionName
        package.deploymentConfiguration = deployConfigFile.map { absolutePath($0, in: current) }
        package.usesDockerTypes = format == "docker"
        let options = [
            "auth_level": authLevel, "input_path": inputPath, "output_path": outputPath,
            "input_queue_name": inputQueueName, "output_queue_name": outputQueueName,
        ].compactMapValues { $0 }
        package.trigger = try FunctionTrigger(trigger, options: options)
        for name in model { package.models.append(try find(name)) }
        return package
    }

    private func find(_ name: String) throws(ImageError) -> PackagedModel {
        let path = absolutePath(name, in: currentFolder())
        do throws(ResourceError) {
            return try registeredModel(name)
        } catch {
            if access(path, R_OK) == 0 {
                let file = path.split(separator: "/").last.map(String.init) ?? "model"
                return PackagedModel(name: String(file.prefix(30)), version: "0", path: path)
            }
            throw fail(
                "'\(name)' is neither a file nor a registered model", "andiron model register --name NAME --path FILE")
        }
    }

    @EventLoop
    private func tag(_ repository: ImageReference, _ client: RegistryClient) async throws(ImageError) -> String {
        if let imageLabel { return imageLabel }
        guard imageName != nil else { return timeTag() }
        var tags: [String] = []
        do throws(ImageError) {
            tags = try await client.tags(repository)
        } catch {
            guard error.kind == .notFound else { throw error }
        }
        return "\((tags.compactMap { Int($0) }.max() ?? 0) + 1)"
    }
}

/// `20190827195524`.
private func timeTag() -> String {
    var now = time(nil)
    var parts = tm()
    gmtime_r(&now, &parts)
    var buffer = [CChar](repeating: 0, count: 32)
    let count = strftime(&buffer, buffer.count, "%Y%m%d%H%M%S", &parts)
    return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
