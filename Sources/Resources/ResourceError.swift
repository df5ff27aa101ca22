/// What can go wrong with local resources, in the words of Azure's command line where it has some.
public import Diagnostics

/// An error of this module.
public enum ResourceError: HostError {
    /// A name breaks a rule, which is named.
    case name(String, rule: String)
    case notFound(String, remedy: String?)
    case exists(String)
    /// An argument is not as it must be.
    case argument(String, remedy: String?)
    /// The resources cannot be read or written.
    case store(String)

    public var code: String {
        switch self {
        case .name: "AN9020"
        case .notFound: "AN9021"
        case .exists: "AN9022"
        case .argument: "AN9023"
        case .store: "AN9024"
        }
    }
    public var fault: Fault { if case .store = self { .host } else { .user } }
    public var message: String {
        switch self {
        case .name(let name, let rule): "the name '\(name)' is not allowed: \(rule)"
        case .notFound(let what, _): what
        case .exists(let what): what
        case .argument(let what, _): what
        case .store(let what): what
        }
    }
    public var remedy: String? {
        switch self {
        case .notFound(_, let remedy), .argument(_, let remedy): remedy
        case .name, .exists: nil
        case .store: "check the folder and its permissions; ANDIRON_STATE names another one"
        }
    }
}
