/// What a function.json says, checked and resolved: the words of Azure Functions.
public import JSONText

/// Which way a binding carries data.
public enum BindingDirection: String, Sendable, CaseIterable {
    case `in`, out, `inout`
}

/// Who may call an HTTP function.
public enum AuthorizationLevel: String, Sendable, CaseIterable, Comparable {
    case anonymous, user, function, system, admin

    private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }

    public static func < (left: Self, right: Self) -> Bool { left.rank < right.rank }
}

/// One entry of `bindings`.
public struct BindingMetadata: Sendable {
    public let name: String
    /// The type as written; compared without regard to case.
    public let type: String
    public let direction: BindingDirection
    /// The whole entry, for properties that only one kind of binding has.
    public let properties: JSONValue
    private let texts: [String: String]

    /// - Parameter texts: the text properties by lower-case name, settings replaced.
    public init(
        name: String, type: String, direction: BindingDirection, properties: JSONValue, texts: [String: String] = [:]
    ) {
        self.name = name
        self.type = type
        self.direction = direction
        self.properties = properties
        self.texts = texts
    }

    /// A text property in any case, with `%Name%` replaced by settings where the property allows it.
    public func text(_ key: String) -> String? { texts[key.lowercased()] }

    /// True for a trigger: its type ends in `trigger`.
    public var isTrigger: Bool { type.lowercased().hasSuffix("trigger") }
}

/// The HTTP side of a function: the properties of its `httpTrigger`.
public struct HTTPTriggerMetadata: Sendable, Equatable {
    public let authLevel: AuthorizationLevel
    /// Upper case; nil when every method is accepted.
    public let methods: [String]?
    /// The template without the app's prefix; nil means the function's name.
    public let route: String?

    public init(authLevel: AuthorizationLevel, methods: [String]?, route: String?) {
        self.authLevel = authLevel
        self.methods = methods
        self.route = route
    }
}

/// How often and after what delay a failed invocation is tried again.
public enum RetryPolicy: Sendable, Equatable {
    /// The same delay each time; a count of nil is for ever.
    case fixedDelay(count: Int?, delay: Duration)
    /// Doubling from `minimum` to `maximum`.
    case exponentialBackoff(count: Int?, minimum: Duration, maximum: Duration)

    /// The delay before retry number `retry` (1 is the first); nil when there is none left.
    public func delay(beforeRetry retry: Int) -> Duration? {
        switch self {
        case .fixedDelay(let count, let delay):
            return retry <= count ?? .max ? delay : nil
        case .exponentialBackoff(let count, let minimum, let maximum):
            guard retry <= count ?? .max else { return nil }
            return Swift.min(maximum, minimum * (1 << Swift.min(retry - 1, 30)))
        }
    }
}

/// What a function runs.
public enum EntryPoint: Sendable, Equatable, Hashable {
    /// Answers with its input; for measuring the host itself.
    case echo
    /// Answers with the size of its input; for measuring what large inputs cost.
    case size
    /// A bundle folder with an Azure ML entry script; both paths absolute.
    case bundle(folder: String, script: String?)
}

/// One function of an app.
public struct FunctionMetadata: Sendable {
    public let name: String
    /// The folder that holds its function.json; absolute.
    public let folder: String
    public let bindings: [BindingMetadata]
    public let http: HTTPTriggerMetadata?
    public let entryPoint: EntryPoint
    public let retry: RetryPolicy?
    /// What function.json says about the inference cache; nil leaves it to the app.
    public let usesInferenceCache: Bool?
    /// Where the model's input comes from when a request names a key; nil: from the request.
    public let features: FeatureSource?
    public let isDisabled: Bool
    /// function.json as read.
    public let configuration: JSONValue

    public init(
        name: String, folder: String, bindings: [BindingMetadata], http: HTTPTriggerMetadata?, entryPoint: EntryPoint,
        retry: RetryPolicy?, usesInferenceCache: Bool?, features: FeatureSource? = nil, isDisabled: Bool,
        configuration: JSONValue
    ) {
        self.name = name
        self.folder = folder
        self.bindings = bindings
        self.http = http
        self.entryPoint = entryPoint
        self.retry = retry
        self.usesInferenceCache = usesInferenceCache
        self.features = features
        self.isDisabled = isDisabled
        self.configuration = configuration
    }

    /// True for what the host answers itself.
    public var isBuiltIn: Bool { entryPoint == .echo || entryPoint == .size }

    /// The kind of trigger in the words of `faas.trigger`: `http`, `blob`, `queue`.
    public var triggerKind: String {
        let type = triggerType.lowercased()
        return type.hasSuffix("trigger") ? String(type.dropLast(7)) : type
    }

    /// The trigger binding's type as written.
    public var triggerType: String { bindings.first { $0.isTrigger }?.type ?? "" }
}
