/// What can be wrong with a model bundle.
public import Diagnostics

/// An error about a bundle's files or its environment.
public enum BundleError: HostError {
    /// The entry script is not there or is no Python file.
    case entryScript(String, place: SourcePlace?)
    /// A dependency file cannot be read.
    case dependencyFile(String, place: SourcePlace)
    /// A conda package has no counterpart on PyPI.
    case condaOnlyPackage(String, place: SourcePlace)
    /// A custom environment lacks azureml-defaults, or has one that is too old.
    case azuremlDefaults(String, place: SourcePlace)
    /// The environment could not be built.
    case environment(String, log: String)
    /// No Python to run entry scripts with.
    case python(String)
    /// inferenceconfig.json or deploymentconfig.json is wrong.
    case configuration(String, place: SourcePlace?)
    /// The bundle's files cannot be read.
    case unreadable(String)

    public var code: String {
        switch self {
        case .entryScript: "AN5001"
        case .dependencyFile: "AN5002"
        case .condaOnlyPackage: "AN5003"
        case .azuremlDefaults: "AN5004"
        case .environment: "AN5005"
        case .python: "AN5006"
        case .configuration: "AN5007"
        case .unreadable: "AN5008"
        }
    }

    public var fault: Fault {
        switch self {
        case .environment: .service
        default: .user
        }
    }

    public var message: String {
        switch self {
        case .entryScript(let text, _), .dependencyFile(let text, _), .azuremlDefaults(let text, _),
            .environment(let text, _), .python(let text), .configuration(let text, _), .unreadable(let text):
            text
        case .condaOnlyPackage(let name, _): "the conda package '\(name)' has no counterpart on PyPI"
        }
    }

    public var remedy: String? {
        switch self {
        case .entryScript:
            "name the script in inferenceconfig.json as \"entryScript\", or put a score.py into the bundle"
        case .dependencyFile: "a conda file lists 'dependencies:', with pip packages under '- pip:'"
        case .condaOnlyPackage: "drop it, or install it with the system's packages and drop it here"
        case .azuremlDefaults: "add 'azureml-defaults>=1.0.45' under '- pip:'"
        case .environment(_, let log): "see \(log)"
        case .python: "install python3 and python3-venv, or set ANDIRON_PYTHON to a Python 3.9 or later"
        case .configuration, .unreadable: nil
        }
    }

    public var place: SourcePlace? {
        switch self {
        case .entryScript(_, let place), .configuration(_, let place): place
        case .dependencyFile(_, let place), .condaOnlyPackage(_, let place), .azuremlDefaults(_, let place): place
        case .environment, .python, .unreadable: nil
        }
    }
}
