/// A model bundle: an Azure ML entry script, its model, its dependencies and its resources.
public import ConfigurationFiles
internal import Diagnostics
public import EventLoops
internal import Glibc
internal import JSONText

/// CPU and memory a worker may use, from deploymentconfig.json `containerResourceRequirements`.
public struct ContainerResources: Sendable, Equatable {
    /// `cpu`: cores; a worker runs on that many, rounded up. nil is all.
    public var cores: Double?
    /// `memoryInGB`: resident memory in bytes past which a worker is ended. nil is without limit.
    public var memoryBytes: Int?

    public init(cores: Double? = nil, memoryBytes: Int? = nil) {
        self.cores = cores
        self.memoryBytes = memoryBytes
    }
}

/// A bundle as read from its folder.
public struct Bundle: Sendable {
    /// Absolute.
    public let folder: String
    /// The entry script, absolute.
    public let entryScript: String
    /// `AML_APP_ROOT`: the source directory, where the script runs.
    public let sourceFolder: String
    /// `AZUREML_MODEL_DIR`.
    public let modelFolder: String
    public let dependencies: Dependencies
    /// From the inference configuration's environment.
    public let environmentVariables: [String: String]
    public let resources: ContainerResources
    /// `numReplicas`: worker processes; nil leaves it to the app.
    public let workerCount: Int?
    /// `scoringTimeoutMs`; nil leaves it to the app.
    public let scoringTimeout: Duration?
    /// Names what the workers run: equal contents give equal digests.
    public let digest: SHA256Digest
    /// What is worth a word but stops nothing.
    public let warnings: [ConfigurationProblem]

    /// Files a bundle may have.
    public static let fileLimit = 100_000

    /// Reads a bundle; blocking, so run off the loop.
    ///
    /// - Parameters:
    ///   - folder: absolute.
    ///   - script: the entry script when the function names it; else inferenceconfig.json or score.py decide.
    /// - Throws: the first thing that keeps it from running.
    public static func load(folder: String, script: String?) throws(BundleError) -> Bundle {
        var reader = BundleReader(folder: folder)
        try reader.readInferenceConfiguration()
        try reader.readDeploymentConfiguration()
        if reader.dependencies == nil { reader.findRequirements() }
        return try reader.bundle(script: script)
    }
}

private struct BundleReader {
    let folder: String
    var entryScript: String?
    var entryPlace: SourcePlace?
    var sourceFolder: String
    var dependencies: Dependencies?
    var variables: [String: String] = [:]
    var resources = ContainerResources()
    var workerCount: Int?
    var scoringTimeout: Duration?
    var warnings: [ConfigurationProblem] = []

    init(folder: String) {
        self.folder = folder
        sourceFolder = folder
    }

    private static let environmentKeys = [
        "name", "version", "docker", "environmentVariables", "python", "r", "spark", "databricks",
        "inferencingStackVersion",
        "assetId", "$schema",
    ]
    private static let inferenceKeys = [
        "$schema", "entryScript", "sourceDirectory", "environment", "runtime", "condaFile", "extraDockerfileSteps",
        "enableGpu",
        "description", "baseImage", "baseImageRegistry", "cudaVersion", "schemaFile",
    ]
    private static let deploymentKeys = [
        "$schema", "computeType", "computeTarget", "containerResourceRequirements", "numReplicas", "autoScaler",
        "maxConcurrentRequestsPerContainer", "maxQueueWaitMs", "scoringTimeoutMs", "authEnabled", "tokenAuthEnabled",
        "aadAuthEnabled", "keys", "dataCollection", "appInsightsEnabled", "livenessProbeRequirements", "namespace",
        "tags",
        "properties", "description", "location", "sslEnabled", "sslCertificate", "sslKey", "cname", "dnsNameLabel",
        "port",
        "gpuCores", "enableAppInsights", "collectModelData",
    ]

    private func reader(_ name: String) throws(BundleError) -> ConfigurationReader? {
        let path = folder + "/" + name
        guard access(path, F_OK) == 0 else { return nil }
        do {
            return ConfigurationReader(file: try ConfigurationFile(path: path, displayName: path))
        } catch {
            throw .configuration(error.message, place: error.place)
        }
    }

    /// Passes warnings on and throws the first error.
    private mutating func settle(_ reader: ConfigurationReader) throws(BundleError) {
        warnings += reader.problems.filter(\.isWarning)
        if let error = reader.problems.first(where: { !$0.isWarning }) {
            throw .configuration(error.message, place: error.place)
        }
    }

    mutating func readInferenceConfiguration() throws(BundleError) {
        guard var reader = try reader("inferenceconfig.json") else { return }
        let root = reader.file.root
        reader.checkKeys(of: root, known: Self.inferenceKeys, in: "")
        entryScript = reader.text(root, "entryScript")
        entryPlace = reader.value(root, "entryScript").map { reader.file.place(of: $0) }
        if let source = reader.text(root, "sourceDirectory") { sourceFolder = absolutePath(source, in: folder) }
        let environment = reader.section(root, "environment", known: Self.environmentKeys)
        for member in reader.section(environment, "environmentVariables")?.members ?? [] {
            variables[member.name] = member.value.string ?? ""
        }
        let python = reader.section(environment, "python")
        if let inline = reader.section(python, "condaDependencies") {
            // JSON is YAML, so the inline form is read by the same reader.
            var writer = JSONWriter()
            writer.value(inline)
            dependencies = try Dependencies.conda(
                writer.bytes, file: reader.file.displayName, isCustomEnvironment: true)
        } else if let file = reader.text(python, "condaDependenciesFile") ?? reader.text(root, "condaFile") {
            dependencies = try readConda(file)
        }
        try settle(reader)
    }

    private func readConda(_ file: String) throws(BundleError) -> Dependencies {
        let path = absolutePath(file, in: folder)
        guard let bytes = readFile(path, limit: ConfigurationFile.byteLimit) else {
            throw .dependencyFile("the dependency file cannot be read", place: SourcePlace(file: path))
        }
        return try Dependencies.conda(bytes, file: path, isCustomEnvironment: true)
    }

    /// Without an inference configuration: a conda file or requirements file beside the script.
    mutating func findRequirements() {
        for name in ["conda.yml", "conda.yaml", "conda_dependencies.yml", "environment.yml"] {
            let path = folder + "/" + name
            if let bytes = readFile(path, limit: ConfigurationFile.byteLimit) {
                do {
                    dependencies = try Dependencies.conda(bytes, file: path, isCustomEnvironment: false)
                } catch {
                    failure = error
                }
                return
            }
        }
        if let bytes = readFile(folder + "/requirements.txt", limit: ConfigurationFile.byteLimit) {
            dependencies = .pip(bytes, file: folder + "/requirements.txt")
        }
    }

    private var failure: BundleError?

    mutating func readDeploymentConfiguration() throws(BundleError) {
        guard var reader = try reader("deploymentconfig.json") else { return }
        let root = reader.file.root
        reader.checkKeys(of: root, known: Self.deploymentKeys, in: "")
        let container = reader.section(
            root, "containerResourceRequirements",
            known: ["cpu", "memoryInGB", "gpu", "cpuLimit", "memoryInGBLimit", "fpga"])
        let cores =
            reader.number(container, "cpuLimit", in: 0.01...1024) ?? reader.number(container, "cpu", in: 0.01...1024)
        let gigabytes =
            reader.number(container, "memoryInGBLimit", in: 0.01...65536)
            ?? reader.number(container, "memoryInGB", in: 0.01...65536)
        resources = ContainerResources(cores: cores, memoryBytes: gigabytes.map { Int($0 * 1_073_741_824) })
        workerCount = reader.integer(root, "numReplicas", in: 1...64)
        scoringTimeout = reader.integer(root, "scoringTimeoutMs", in: 1...86_400_000).map { .milliseconds($0) }
        try settle(reader)
    }

    func bundle(script: String?) throws(BundleError) -> Bundle {
        if let failure { throw failure }
        let path = script ?? absolutePath(entryScript ?? "score.py", in: sourceFolder)
        guard path.hasSuffix(".py"), access(path, R_OK) == 0 else {
            throw .entryScript("the entry script '\(path)' does not exist or is not a .py file", place: entryPlace)
        }
        return Bundle(
            folder: folder, entryScript: path, sourceFolder: sourceFolder, modelFolder: modelFolder(),
            dependencies: dependencies ?? .none, environmentVariables: variables, resources: resources,
            workerCount: workerCount, scoringTimeout: scoringTimeout, digest: try digest(script: path),
            warnings: warnings)
    }

    /// The bundle's `model` folder, the only version of the only model in `azureml-models`, or the bundle itself.
    private func modelFolder() -> String {
        if isFolder(folder + "/model") { return folder + "/model" }
        let registered = folder + "/azureml-models"
        let models = folderEntries(registered)
        guard models.count == 1 else { return models.isEmpty ? folder : registered }
        let versions = folderEntries("\(registered)/\(models[0])")
        return versions.count == 1 ? "\(registered)/\(models[0])/\(versions[0])" : registered
    }

    /// Digest of every file's path and contents, the script's path first.
    private func digest(script: String) throws(BundleError) -> SHA256Digest {
        var lines: [UInt8] = Array("script \(relativePath(script, to: folder))\n".utf8)
        var roots = [folder]
        if !sourceFolder.hasPrefix(folder) { roots.append(sourceFolder) }
        var count = 0
        for root in roots {
            var pending = [root]
            while let current = pending.popLast() {
                for name in folderEntries(current) where !Self.ignored.contains(name) {
                    let path = current + "/" + name
                    if isFolder(path) {
                        pending.append(path)
                        continue
                    }
                    count += 1
                    guard count <= Bundle.fileLimit else {
                        throw .unreadable("the bundle '\(folder)' has more than \(Bundle.fileLimit) files")
                    }
                    guard let digest = SHA256Digest(ofFile: path) else { continue }
                    lines += Array("\(relativePath(path, to: root)) \(digest)\n".utf8)
                }
            }
        }
        return SHA256Digest(of: lines)
    }

    private static let ignored: Set = ["__pycache__", ".git", ".venv", ".andiron", ".DS_Store"]
}
