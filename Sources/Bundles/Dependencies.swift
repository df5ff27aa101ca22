/// The Python packages a bundle asks for, from a conda file or a requirements file, as pip requirements.
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops

/// What to install. Equal dependencies share one environment.
public struct Dependencies: Sendable, Equatable {
    /// Requirement lines for pip, sorted, without duplicates.
    public let requirements: [String]
    /// The Python the conda file asks for, such as `3.8`; only a wish.
    public let python: String?

    /// Nothing to install.
    public static let none = Dependencies(requirements: [], python: nil)

    init(requirements: [String], python: String?) {
        self.requirements = Array(Set(requirements)).sorted()
        self.python = python
    }

    /// What Andiron installs where `azureml-defaults` is asked for: the two packages entry scripts import
    /// from it. The server, the SDK and the telemetry it would also bring are Andiron's own part.
    static let azuremlDefaults = ["azureml-contrib-services==1.62.0", "inference-schema==1.8"]
    static let azuremlDefaultsMinimum = [1, 0, 45]

    /// Reads a pip requirements file: its lines without comments. Options (`-r`, `--index-url`) are kept.
    static func pip(_ bytes: [UInt8], file: String) -> Dependencies {
        let lines = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
        let requirements = lines.map { line in
            String((line.split(separator: " #").first ?? "").trimmingSpaces)
        }
        return Dependencies(
            requirements: expandDefaults(requirements.filter { !$0.isEmpty && !$0.hasPrefix("#") }), python: nil)
    }

    /// Reads a conda environment file.
    ///
    /// - Parameter isCustomEnvironment: whether `azureml-defaults` is demanded, as Azure ML demands it of
    ///   every environment given to an inference configuration.
    static func conda(
        _ bytes: [UInt8], file: String, isCustomEnvironment: Bool
    ) throws(BundleError) -> Dependencies {
        let root: YAMLNode?
        do throws(YAMLError) {
            root = try YAMLReader.parse(bytes)
        } catch {
            throw .dependencyFile(error.reason, place: SourcePlace(file: file, line: error.line))
        }
        guard let root, case .sequence(let entries, _)? = root["dependencies"] else {
            throw .dependencyFile(
                "there is no list 'dependencies'", place: SourcePlace(file: file, line: root?.line ?? 1))
        }
        var requirements: [String] = []
        var python: String?
        for entry in entries {
            switch entry {
            case .scalar(let text, let line):
                let package = try CondaPackage(text, place: SourcePlace(file: file, line: line))
                if package.name == "python" { python = package.version }
                if let requirement = package.requirement { requirements.append(requirement) }
            case .mapping(let pairs, let line):
                for (key, value) in pairs {
                    guard key == "pip", case .sequence(let packages, _) = value else {
                        throw .dependencyFile(
                            "'\(key)' is not understood; only 'pip:' lists are",
                            place: SourcePlace(file: file, line: line))
                    }
                    for case .scalar(let text, _) in packages { requirements.append(text.trimmingSpaces) }
                }
            case .sequence(_, let line):
                throw .dependencyFile("a list inside 'dependencies'", place: SourcePlace(file: file, line: line))
            }
        }
        if isCustomEnvironment { try checkDefaults(requirements, file: file) }
        return Dependencies(requirements: expandDefaults(requirements), python: python)
    }

    private static func expandDefaults(_ requirements: [String]) -> [String] {
        let names = Set(requirements.map(requirementName))
        guard names.contains("azureml-defaults") else { return requirements }
        let provided = azuremlDefaults.filter { !names.contains(requirementName($0)) }
        return requirements.filter { requirementName($0) != "azureml-defaults" } + provided
    }

    /// Azure ML refuses a custom environment whose azureml-defaults cannot be 1.0.45 or later.
    private static func checkDefaults(_ requirements: [String], file: String) throws(BundleError) {
        let place = SourcePlace(file: file)
        guard let written = requirements.first(where: { requirementName($0) == "azureml-defaults" }) else {
            throw .azuremlDefaults(
                "a custom environment must have the pip package azureml-defaults >= 1.0.45 and has none", place: place)
        }
        let specification = written.drop { $0 != "=" && $0 != "<" && $0 != ">" && $0 != "~" && $0 != "!" }
        for clause in specification.split(separator: ",") {
            let isUpperBound = clause.hasPrefix("==") || clause.hasPrefix("<")
            let version = clause.drop { !$0.isNumber }.split(separator: ".").map { Int($0.prefix { $0.isNumber }) ?? 0 }
            let isStrict = clause.hasPrefix("<") && !clause.hasPrefix("<=")
            let minimum = azuremlDefaultsMinimum
            let tooOld = version.lexicographicallyPrecedes(minimum) || (isStrict && version == minimum)
            if isUpperBound, !version.isEmpty, tooOld {
                throw .azuremlDefaults(
                    "'\(written)' is older than azureml-defaults 1.0.45, the first that can serve", place: place)
            }
        }
    }
}

/// The normalised package name at the start of a requirement (PEP 503).
private func requirementName(_ requirement: String) -> String {
    String(requirement.prefix { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" || $0 == "." })
        .lowercased().replacing("_", with: "-").replacing(".", with: "-")
}

/// One conda package and what it is called on PyPI.
private struct CondaPackage {
    let name: String
    let version: String?
    /// The pip requirement; nil for packages that need no install here.
    let requirement: String?

    /// Conda names that differ on PyPI.
    private static let renamed = [
        "pytorch": "torch", "pytorch-cpu": "torch", "tensorflow-gpu": "tensorflow", "tensorflow-cpu": "tensorflow-cpu",
        "opencv": "opencv-python-headless", "py-opencv": "opencv-python-headless", "py-xgboost": "xgboost",
        "py-lightgbm": "lightgbm", "msgpack-python": "msgpack", "pytables": "tables", "redis-py": "redis",
        "pillow": "pillow", "onnxruntime-cpu": "onnxruntime", "pytorch-lightning": "pytorch-lightning",
        "matplotlib-base": "matplotlib", "scikit-learn-intelex": "scikit-learn-intelex", "sqlite": "",
    ]
    /// Part of every environment here already.
    private static let present: Set = [
        "python", "pip", "setuptools", "wheel", "nomkl", "ca-certificates", "certifi-conda",
    ]
    /// Names (or their beginnings) that exist only as conda packages.
    private static let condaOnly = [
        "cudatoolkit", "cudnn", "cuda-", "mkl", "openmpi", "mpich", "gcc", "gxx", "libgcc", "libstdcxx", "openssl",
        "r-",
        "nodejs", "make", "cmake-conda", "_libgcc", "_openmp", "libblas", "liblapack", "openblas", "git", "curl",
        "zlib",
        "conda", "java-jdk", "openjdk", "blas", "tk", "readline", "ncurses", "xz", "libffi",
    ]

    init(_ text: String, place: SourcePlace) throws(BundleError) {
        let withoutChannel = text.split(separator: "::").last.map(String.init) ?? text
        let compact = withoutChannel.filter { $0 != " " }
        name = String(compact.prefix { !"=<>!~[".contains($0) }).lowercased()
        let rest = compact.dropFirst(name.count)
        guard !name.isEmpty else { throw .dependencyFile("'\(text)' is not a package", place: place) }
        version = rest.drop { "=<>!~".contains($0) }.split(separator: "=").first.map(String.init)
        if Self.present.contains(name) {
            requirement = nil
            return
        }
        let package = name
        let isCondaOnly = Self.condaOnly.contains { $0.hasSuffix("-") ? package.hasPrefix($0) : package == $0 }
        guard !isCondaOnly else { throw .condaOnlyPackage(name, place: place) }
        let pypi = Self.renamed[name] ?? name
        guard !pypi.isEmpty else {
            requirement = nil
            return
        }
        if rest.hasPrefix("="), !rest.hasPrefix("==") {
            // `name=1.2` is a prefix match in conda, and `name=1.2=build` names a build, which PyPI has not.
            let wanted = version ?? ""
            requirement = wanted.hasSuffix("*") ? "\(pypi)==\(wanted)" : "\(pypi)==\(wanted).*"
        } else {
            requirement = pypi + rest
        }
    }
}

extension StringProtocol {
    var trimmingSpaces: String {
        var view = self[...]
        while let first = view.first, first.isWhitespace { view = view.dropFirst() }
        while let last = view.last, last.isWhitespace { view = view.dropLast() }
        return String(view)
    }
}
