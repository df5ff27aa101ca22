/// What is packaged, and how it becomes an image laid out as Azure ML's functions image.
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc
internal import JSONText

/// A model that goes into an image.
public struct PackagedModel: Sendable {
    public let name: String
    public let version: String
    /// A file or a folder.
    public let path: String

    public init(name: String, version: String, path: String) {
        self.name = name
        self.version = version
        self.path = path
    }
}

/// Everything a package is made of.
public struct ModelPackage: Sendable {
    public var functionName = "score"
    public var trigger = FunctionTrigger.http(authLevel: nil)
    public var models: [PackagedModel] = []
    /// A file; inside `sourceFolder` when there is one.
    public var entryScript: String
    /// A folder that is packaged whole.
    public var sourceFolder: String?
    /// A conda file or a requirements file.
    public var dependencyFile: String?
    /// The text of a conda file, when there is no file.
    public var dependencyText: [UInt8]?
    public var deploymentConfiguration: String?
    public var environmentVariables: [String: String] = [:]
    public var labels: [String: String] = [:]
    public var usesDockerTypes = false

    public init(entryScript: String) { self.entryScript = entryScript }
}

/// The base an image is appended to: never downloaded, only named and mounted.
public struct PackageBase: Sendable {
    public let reference: ImageReference
    public let digest: Digest
    public let manifest: Manifest
    public let configuration: ImageConfiguration
}

/// A built image; its blobs lie in the store.
public struct BuiltPackage: Sendable {
    public let digest: Digest
    public let manifest: [UInt8]
    public let mediaType: String
    public let blobs: [PushedBlob]
}

extension ContentStore {
    /// An image that was packaged here and lies in the store.
    public func package(_ digest: Digest) throws(ImageError) -> BuiltPackage {
        func missing(_ what: String) -> ImageError {
            ImageError(
                .notFound, image: "\(digest)", step: "push", "\(what) is not in the store",
                remedy: "package it again; images that were pulled are kept unpacked only")
        }
        let decoder = ManifestDecoder(image: "\(digest)")
        guard let bytes = blob(digest, limit: Manifest.byteLimit),
            case .image(let manifest) = try decoder.manifest(bytes, contentType: "")
        else { throw missing("the manifest") }
        var blobs: [PushedBlob] = []
        for descriptor in manifest.layers + [manifest.configuration] {
            let path = blobPath(descriptor.digest)
            let isHere = access(path, R_OK) == 0
            guard isHere || descriptor.role == .base else { throw missing("the layer \(descriptor.digest.short)") }
            blobs.append(PushedBlob(descriptor: descriptor, path: isHere ? path : nil))
        }
        return BuiltPackage(digest: digest, manifest: bytes, mediaType: manifest.mediaType, blobs: blobs)
    }
}

/// Builds images; blocking.
public struct PackageBuilder: Sendable {
    private let store: ContentStore
    private let package: ModelPackage
    private let base: PackageBase?

    private static let appRoot = "var/azureml-app"
    private static let scriptRoot = "home/site/wwwroot"

    public init(store: ContentStore, package: ModelPackage, base: PackageBase?) {
        self.store = store
        self.package = package
        self.base = base
    }

    private func fail(_ reason: String, _ remedy: String? = nil) -> ImageError {
        ImageError(.package, image: "", step: "package", reason, remedy: remedy)
    }

    /// Builds the layers, the configuration and the manifest. Equal inputs give an equal digest.
    ///
    /// - Parameter show: is told what is done, a line at a time.
    public func build(show: (String) -> Void) throws(ImageError) -> BuiltPackage {
        try store.prepare(image: "")
        try check()
        var layers: [WrittenLayer] = []
        let type = package.usesDockerTypes ? MediaType.dockerLayerGzip : MediaType.layerGzip
        func write(_ writer: LayerWriter, _ role: LayerRole, _ what: String, _ more: [String: String] = [:])
            throws(ImageError)
        {
            if writer.isEmpty { return }
            let annotations = more.merging([LayerRole.annotation: role.rawValue]) { _, new in new }
            let layer = try writer.write(to: store, mediaType: type, annotations: annotations)
            layers.append(layer)
            show(
                "Step \(layers.count): \(role.rawValue) layer, \(what): \(layer.descriptor.digest.short), \(layer.descriptor.size) bytes"
            )
        }
        if let base { show("Base: \(base.reference), \(base.manifest.layers.count) layers, not downloaded") }
        try write(dependencies(), .dependencies, package.dependencyFile ?? dependencyName ?? "")
        for model in package.models {
            var writer = LayerWriter { fail($0, $1) }
            let name = model.path.split(separator: "/").last.map(String.init) ?? "model"
            let path = "\(Self.appRoot)/azureml-models/\(model.name)/\(model.version)/\(name)"
            try writer.add(tree: model.path, as: path)
            try write(writer, .model, "\(model.name):\(model.version)", ["org.cncf.model.filepath": "/" + path])
        }
        try write(code(), .code, package.entryScript)
        let built = try finish(layers)
        show("Digest: \(built.digest)")
        return built
    }

    // MARK: Inputs

    private func check() throws(ImageError) {
        let script = package.entryScript
        let name = script.split(separator: "/").last.map(String.init) ?? script
        guard access(script, R_OK) == 0, !isFolder(script) else {
            throw fail("the entry script '\(script)' does not exist", "--entry-script score.py")
        }
        let stem = name.hasSuffix(".py") ? String(name.dropLast(3)) : ""
        let isIdentifier =
            stem.utf8.first.map { !(0x30...0x39).contains($0) } ?? false
            && stem.unicodeScalars.allSatisfy { $0 == "_" || $0.properties.isXIDContinue }
        guard isIdentifier else {
            throw fail("the entry script '\(name)' must be a .py file whose name is a Python identifier")
        }
        if let source = package.sourceFolder, !script.hasPrefix(source + "/") {
            throw fail("the entry script '\(script)' is not in the source folder '\(source)'")
        }
        for model in package.models where access(model.path, R_OK) != 0 {
            throw fail(
                "the model '\(model.path)' does not exist", "--model NAME:VERSION of a registered one, or a path")
        }
        let letters = package.functionName.utf8
        guard let first = letters.first, (0x41...0x5A).contains(first) || (0x61...0x7A).contains(first),
            letters.allSatisfy({
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x5F
                    || $0 == 0x2D
            })
        else {
            throw fail("the function name '\(package.functionName)' must be a letter, then letters, digits, - and _")
        }
    }

    private var dependencyName: String? {
        package.dependencyFile.map { $0.hasSuffix(".txt") ? "requirements.txt" : "conda.yml" }
            ?? package.dependencyText.map { _ in "conda.yml" }
    }

    private func dependencies() throws(ImageError) -> LayerWriter {
        var writer = LayerWriter { fail($0, $1) }
        guard let name = dependencyName else { return writer }
        guard let file = package.dependencyFile else {
            let text = package.dependencyText ?? []
            writer.add(LayerEntry(path: "\(Self.appRoot)/\(name)", contents: .bytes(text)))
            return writer
        }
        guard let bytes = readFile(file, limit: ConfigurationFile.byteLimit) else {
            throw fail("the dependency file '\(file)' cannot be read: \(String(cString: strerror(errno)))")
        }
        writer.add(LayerEntry(path: "\(Self.appRoot)/\(name)", contents: .bytes(bytes)))
        return writer
    }

    /// The entry script's place below `AML_APP_ROOT`.
    private var entryScriptPath: String {
        guard let source = package.sourceFolder else {
            return package.entryScript.split(separator: "/").last.map(String.init) ?? "score.py"
        }
        return "\(sourceName)/\(relativePath(package.entryScript, to: source))"
    }

    private var sourceName: String { package.sourceFolder?.split(separator: "/").last.map(String.init) ?? "" }

    private func code() throws(ImageError) -> LayerWriter {
        var writer = LayerWriter { fail($0, $1) }
        let root = Self.appRoot
        if let source = package.sourceFolder {
            try writer.add(tree: source, as: "\(root)/\(sourceName)")
        } else {
            try writer.add(tree: package.entryScript, as: "\(root)/\(entryScriptPath)")
        }
        writer.add(LayerEntry(path: "\(root)/inferenceconfig.json", contents: .bytes(inferenceConfiguration())))
        writer.add(LayerEntry(path: "\(root)/model_config_map.json", contents: .bytes(modelMap())))
        if let path = package.deploymentConfiguration {
            try writer.add(tree: path, as: "\(root)/deploymentconfig.json")
        }
        let site = Self.scriptRoot
        writer.add("\(site)/host.json", "{\"version\":\"2.0\"}\n")
        writer.add(
            LayerEntry(
                path: "\(site)/\(package.functionName)/function.json", contents: .bytes(package.trigger.functionFile()))
        )
        writer.add("\(site)/\(package.functionName)/__init__.py", functionShim)
        return writer
    }

    private func inferenceConfiguration() -> [UInt8] {
        jsonObject { writer in
            writer.member(
                "entryScript",
                package.sourceFolder == nil ? entryScriptPath : String(entryScriptPath.dropFirst(sourceName.count + 1)))
            if package.sourceFolder != nil { writer.member("sourceDirectory", sourceName) }
            writer.name("environment")
            writer.beginObject()
            writer.member("name", "package")
            writer.name("environmentVariables")
            writer.beginObject()
            for (name, value) in package.environmentVariables.sorted(by: { $0.key < $1.key }) {
                writer.member(name, value)
            }
            writer.endObject()
            if dependencyName == "conda.yml" {
                writer.name("python")
                writer.beginObject()
                writer.member("condaDependenciesFile", "conda.yml")
                writer.endObject()
            }
            writer.endObject()
        } + [0x0A]
    }

    /// Azure ML's map of the models in the image.
    private func modelMap() -> [UInt8] {
        jsonObject { writer in
            writer.name("models")
            writer.beginObject()
            for model in package.models {
                writer.name(model.name)
                writer.beginObject()
                writer.name(model.version)
                writer.beginObject()
                writer.member("isUnpacked", true)
                writer.member("originalModelName", model.path.split(separator: "/").last.map(String.init) ?? "")
                writer.endObject()
                writer.endObject()
            }
            writer.endObject()
            writer.name("accountContext")
            writer.beginObject()
            writer.endObject()
        } + [0x0A]
    }

    // MARK: Configuration and manifest

    private var environment: [String] {
        let root = "/" + Self.appRoot
        let models = package.models.count == 1 ? package.models.first : nil
        let folder = models.map { "azureml-models/\($0.name)/\($0.version)" } ?? "azureml-models"
        var variables = [
            ("AzureWebJobsScriptRoot", "/" + Self.scriptRoot),
            ("AzureFunctionsJobHost__Logging__Console__IsEnabled", "true"),
            ("FUNCTIONS_WORKER_RUNTIME", "python"), ("AML_APP_ROOT", root),
            ("AZUREML_ENTRY_SCRIPT", entryScriptPath), ("AZUREML_MODEL_DIR", "\(root)/\(folder)"),
            ("PYTHONPATH", "/\(Self.scriptRoot)/.python_packages/lib/site-packages"),
        ]
        if package.sourceFolder != nil { variables.append(("AZUREML_SOURCE_DIRECTORY", sourceName)) }
        let names = Set(variables.map(\.0))
        let inherited = base?.configuration.environment.filter { entry in
            !names.contains(String(entry.prefix { $0 != "=" }))
        }
        return (inherited ?? []) + variables.map { "\($0.0)=\($0.1)" }
    }

    private func bundleLabel() -> String {
        let bytes = jsonObject { writer in
            writer.member("schema", 1)
            writer.name("functions")
            writer.beginArray()
            writer.string(package.functionName)
            writer.endArray()
            writer.name("deployedApiOptions")
            package.trigger.write(to: &writer)
            writer.name("models")
            writer.beginArray()
            for model in package.models {
                writer.beginObject()
                writer.member("name", model.name)
                writer.member("version", model.version)
                writer.endObject()
            }
            writer.endArray()
            writer.member("entryScript", entryScriptPath)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func finish(_ layers: [WrittenLayer]) throws(ImageError) -> BuiltPackage {
        let docker = package.usesDockerTypes
        let configuration = configurationDocument(layers)
        let digest = try store.keep(configuration, image: "")
        let configurationDescriptor = Descriptor(
            mediaType: docker ? MediaType.dockerConfiguration : MediaType.configuration, digest: digest,
            size: configuration.count)
        let mediaType = docker ? MediaType.dockerManifest : MediaType.manifest
        let baseLayers = (base?.manifest.layers ?? []).map { layer in
            var layer = layer
            layer.annotations[LayerRole.annotation] = LayerRole.base.rawValue
            if docker { layer.mediaType = MediaType.dockerLayerGzip }
            return layer
        }
        var annotations: [String: String] = [:]
        if let base {
            annotations["org.opencontainers.image.base.name"] = "\(base.reference)"
            annotations["org.opencontainers.image.base.digest"] = "\(base.digest)"
        }
        let manifest = jsonObject { writer in
            writer.member("schemaVersion", 2)
            writer.member("mediaType", mediaType)
            writer.name("config")
            write(configurationDescriptor, to: &writer)
            writer.name("layers")
            writer.beginArray()
            for layer in baseLayers + layers.map(\.descriptor) { write(layer, to: &writer) }
            writer.endArray()
            if !annotations.isEmpty {
                writer.name("annotations")
                write(annotations, to: &writer)
            }
        }
        let manifestDigest = try store.keep(manifest, image: "")
        let mounted = baseLayers.map {
            PushedBlob(descriptor: $0, path: nil, mountFrom: base?.reference.repository)
        }
        let own = layers.map { PushedBlob(descriptor: $0.descriptor, path: $0.path) }
        return BuiltPackage(
            digest: manifestDigest, manifest: manifest, mediaType: mediaType,
            blobs: mounted + own + [
                PushedBlob(descriptor: configurationDescriptor, path: store.blobPath(digest))
            ])
    }

    private func configurationDocument(_ layers: [WrittenLayer]) -> [UInt8] {
        let base = base?.configuration.document
        let platform = self.base?.configuration.platform ?? Platform.current
        let labels = package.labels.merging([
            "io.andiron.bundle": bundleLabel(), "org.opencontainers.image.title": package.functionName,
        ]) { mine, _ in mine }
        return jsonObject { writer in
            writer.member("created", "1970-01-01T00:00:00Z")
            writer.member("architecture", platform.architecture)
            writer.member("os", platform.os)
            if !platform.variant.isEmpty { writer.member("variant", platform.variant) }
            writer.name("config")
            writer.beginObject()
            for member in base?["config"]?.members ?? [] where !["Env", "Labels"].contains(member.name) {
                writer.name(member.name)
                writer.value(member.value)
            }
            writer.name("Env")
            writer.beginArray()
            for variable in environment { writer.string(variable) }
            writer.endArray()
            writer.name("Labels")
            write((self.base?.configuration.labels ?? [:]).merging(labels) { _, new in new }, to: &writer)
            writer.endObject()
            writer.name("rootfs")
            writer.beginObject()
            writer.member("type", "layers")
            writer.name("diff_ids")
            writer.beginArray()
            for digest in (self.base?.configuration.diffIDs ?? []) + layers.map(\.diffID) { writer.string("\(digest)") }
            writer.endArray()
            writer.endObject()
            writer.name("history")
            writer.beginArray()
            for entry in base?["history"]?.elements ?? [] { writer.value(entry) }
            for layer in layers {
                writer.beginObject()
                writer.member("created", "1970-01-01T00:00:00Z")
                writer.member("created_by", "andiron package: \(layer.descriptor.role?.rawValue ?? "layer")")
                writer.endObject()
            }
            writer.endArray()
        }
    }

    private func write(_ descriptor: Descriptor, to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("mediaType", descriptor.mediaType)
        writer.member("digest", "\(descriptor.digest)")
        writer.member("size", descriptor.size)
        // Docker's manifests know no annotations, but nobody minds them.
        if !descriptor.annotations.isEmpty {
            writer.name("annotations")
            write(descriptor.annotations, to: &writer)
        }
        writer.endObject()
    }

    private func write(_ texts: [String: String], to writer: inout JSONWriter) {
        writer.beginObject()
        for (name, value) in texts.sorted(by: { $0.key < $1.key }) { writer.member(name, value) }
        writer.endObject()
    }
}

/// What the Functions container runs in place of Andiron's own workers.
private let functionShim = """
    # Runs the entry script in the Azure Functions container; Andiron runs it in its own workers.
    import importlib.util
    import os
    import sys

    import azure.functions as func

    root = os.environ.get("AML_APP_ROOT", "/var/azureml-app")
    path = os.path.join(root, os.environ["AZUREML_ENTRY_SCRIPT"])
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("entry_script", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    if hasattr(script, "init"):
        script.init()


    def text_of(value):
        return value if isinstance(value, (str, bytes)) else __import__("json").dumps(value)


    def main(req=None, input=None, message=None):
        if req is not None:
            return func.HttpResponse(text_of(script.run(req.get_body().decode())), mimetype="application/json")
        if input is not None:
            return text_of(script.run(input.read().decode()))
        return text_of(script.run(message.get_body().decode()))

    """
