@testable import Bundles
import Diagnostics
import HostTestSupport
import Testing

private func conda(_ text: String, custom: Bool = true) throws(BundleError) -> Dependencies {
    try Dependencies.conda(Array(text.utf8), file: "conda.yml", isCustomEnvironment: custom)
}

@Suite struct DependenciesTests {
    @Test func `conda packages become pip requirements`() throws {
        let dependencies = try conda(
            """
            name: x
            channels: [conda-forge]
            dependencies:
              - python=3.8.5
              - numpy
              - conda-forge::scikit-learn=1.2
              - pytorch>=2,<3
              - pandas==2.0
              - pip:
                - azureml-defaults>=1.0.45
                - Flask
            """)
        #expect(dependencies.python == "3.8.5")
        #expect(
            dependencies.requirements == [
                "Flask", "azureml-contrib-services==1.62.0", "inference-schema==1.8", "numpy", "pandas==2.0",
                "scikit-learn==1.2.*", "torch>=2,<3",
            ])
    }

    @Test func `what the user pins beats what azureml-defaults brings`() throws {
        let dependencies = try conda(
            "dependencies: [{pip: ['azureml-defaults', 'inference-schema[numpy-support]==1.7']}]")
        #expect(
            dependencies.requirements == ["azureml-contrib-services==1.62.0", "inference-schema[numpy-support]==1.7"])
    }

    @Test(arguments: [
        ("dependencies: [cudatoolkit=11, {pip: [azureml-defaults]}]", "AN5003", 1),
        ("dependencies:\n- numpy\n- r-base\n- pip:\n  - azureml-defaults", "AN5003", 3),
        ("dependencies:\n- numpy", "AN5004", 0), ("dependencies: [{pip: ['azureml-defaults==1.0.44']}]", "AN5004", 0),
        ("dependencies: [{pip: ['azureml-defaults<1.0.45']}]", "AN5004", 0),
        ("dependencies: [{pip: ['azureml-defaults<=1.0.44.1']}]", "AN5004", 0), ("name: x", "AN5002", 1),
        ("dependencies: [{npm: [x]}]", "AN5002", 1), ("dependencies:\n- a: [", "AN5002", 3),
        ("a: &x 1\nb: *x", "AN5002", 2),
    ])
    func `what cannot be installed is refused with its place`(text: String, code: String, line: Int) {
        let error = #expect(throws: BundleError.self) { try conda(text) }
        #expect(error?.code == code)
        #expect(error?.place?.line == line)
    }

    @Test(arguments: [
        "azureml-defaults", "azureml-defaults>=1.0.45", "azureml-defaults~=1.0.40", "azureml_defaults==1.62.0",
        "azureml-defaults<2",
    ])
    func `an azureml-defaults that can be new enough is accepted`(requirement: String) throws {
        _ = try conda("dependencies: [{pip: ['\(requirement)']}]")
    }

    @Test func `a requirements file is read without its comments`() {
        let text = "# models\nnumpy==2.4.6  # fast\n\n--no-binary x\nscipy\nnumpy==2.4.6\n"
        #expect(
            Dependencies.pip(Array(text.utf8), file: "r").requirements == ["--no-binary x", "numpy==2.4.6", "scipy"])
    }

    @Test func `a deep or huge YAML file is refused`() {
        let deep = "dependencies: " + String(repeating: "[", count: 50) + String(repeating: "]", count: 50)
        #expect(throws: BundleError.self) { try conda(deep) }
        let huge = "dependencies: [" + String(repeating: "a,", count: 20_000) + "b]"
        #expect(throws: BundleError.self) { try conda(huge) }
    }
}

@Suite struct BundleTests {
    private func bundle(_ files: [String: String], script: String? = nil) throws(BundleError) -> Bundle {
        let folder = TemporaryFolder()
        for (name, text) in files { folder.write(name, text) }
        return try Bundle.load(folder: folder.path, script: script.map { folder.path + "/" + $0 })
    }

    @Test func `the inference and deployment configurations are Azure's`() throws {
        let bundle = try bundle([
            "src/main.py": "", "model/m.bin": "x",
            "inferenceconfig.json": #"""
            {"entryScript":"main.py","sourceDirectory":"src","environment":{"name":"e",
             "environmentVariables":{"A":"b"},
             "python":{"condaDependencies":{"dependencies":["numpy",{"pip":["azureml-defaults"]}]}}}}
            """#,
            "deploymentconfig.json": #"""
            {"computeType":"aks","containerResourceRequirements":{"cpu":1.5,"memoryInGB":0.5},"numReplicas":3,
             "scoringTimeoutMs":500,"authEnabled":true}
            """#,
        ])
        #expect(bundle.entryScript.hasSuffix("/src/main.py"))
        #expect(bundle.sourceFolder.hasSuffix("/src"))
        #expect(bundle.modelFolder.hasSuffix("/model"))
        #expect(bundle.environmentVariables == ["A": "b"])
        #expect(bundle.dependencies.requirements.contains("numpy"))
        #expect(bundle.resources == ContainerResources(cores: 1.5, memoryBytes: 512 << 20))
        #expect(bundle.workerCount == 3)
        #expect(bundle.scoringTimeout == .milliseconds(500))
        #expect(bundle.warnings.isEmpty)
    }

    @Test func `a lone script is a bundle, and its digest follows its contents`() throws {
        let first = try bundle(["score.py": "a", "azureml-models/m/3/model.pkl": "m"])
        #expect(first.modelFolder.hasSuffix("/azureml-models/m/3"))
        #expect(first.dependencies == .none)
        #expect(try bundle(["score.py": "a", "azureml-models/m/3/model.pkl": "m"]).digest == first.digest)
        #expect(try bundle(["score.py": "b", "azureml-models/m/3/model.pkl": "m"]).digest != first.digest)
        #expect(try bundle(["score.py": "a", "azureml-models/m/4/model.pkl": "m"]).digest != first.digest)
    }

    @Test(
        arguments: [
            (["other.txt": ""], "AN5001"), (["inferenceconfig.json": #"{"entryScript":"x.py"}"#], "AN5001"),
            (["score.py": "", "inferenceconfig.json": "{"], "AN5007"),
            (
                ["score.py": "", "deploymentconfig.json": #"{"containerResourceRequirements":{"memoryInGB":"lots"}}"#],
                "AN5007"
            ),
            (
                [
                    "score.py": "",
                    "inferenceconfig.json": #"{"environment":{"python":{"condaDependenciesFile":"no.yml"}}}"#,
                ], "AN5002"
            ),
        ] as [([String: String], String)])
    func `a bundle that cannot run says why`(files: [String: String], code: String) {
        #expect(#expect(throws: BundleError.self) { try bundle(files) }?.code == code)
    }
}
