/// Input and output bindings other than HTTP: what is read before a function runs, and written after.
public import EventLoops
internal import HTTPMessages
public import Invocations
public import JSONText

/// What a function gives to one output.
public enum OutputValue: Sendable {
    /// Bytes that are not JSON.
    case bytes([UInt8])
    case json(JSONValue)

    /// As the contents of one blob or message; nil when there is nothing to write. Text is its UTF-8, not quoted;
    /// everything else is compact JSON.
    public var contents: [UInt8]? {
        switch self {
        case .bytes(let bytes): bytes
        case .json(let value): Self.contents(of: value)
        }
    }

    /// The values of an array, each a message of its own; a value that is none stands alone. Text that is an array
    /// counts as one (the Functions host's ReadAsEnumerable).
    public var elements: [OutputValue] {
        guard case .json(let value) = self else { return [self] }
        if let elements = value.elements { return elements.map { .json($0) } }
        if let text = value.string, text.first(where: { !$0.isWhitespace }) == "[",
            let elements = (try? JSONParser.parse(Array(text.utf8)))?.elements
        {
            return elements.map { .json($0) }
        }
        return [self]
    }

    private static func contents(of value: JSONValue) -> [UInt8]? {
        switch value.content {
        case .null: return nil
        case .string(let text): return Array(text.utf8)
        default:
            var writer = JSONWriter()
            writer.value(value)
            return writer.bytes
        }
    }
}

/// Writes one output of an invocation that went well.
@EventLoop
public protocol OutputBinding: AnyObject {
    /// The name in function.json.
    var name: String { get }
    /// Returns when the value is where it belongs, durably.
    func write(_ value: OutputValue, for invocation: Invocation, _ data: BindingData) async throws(InvocationFailure)
}

/// Reads one input before the function runs.
@EventLoop
public protocol InputBinding: AnyObject {
    /// The name in function.json.
    var name: String { get }
    /// The value; nil when there is none, which is no error.
    func read(for invocation: Invocation, _ data: BindingData) async throws(InvocationFailure) -> [UInt8]?
}

/// The bindings of one function.
@EventLoop
public final class FunctionBindings {
    public let inputs: [any InputBinding]
    public let outputs: [any OutputBinding]
    private let hasReturn: Bool

    /// - Parameter hasReturn: whether function.json binds `$return`, to HTTP or to one of `outputs`.
    public init(inputs: [any InputBinding], outputs: [any OutputBinding], hasReturn: Bool) {
        self.inputs = inputs
        self.outputs = outputs
        self.hasReturn = hasReturn
    }

    /// Reads all inputs onto the invocation.
    public func read(_ invocation: Invocation) async throws(InvocationFailure) {
        guard !inputs.isEmpty else { return }
        let data = bindingData(of: invocation)
        for input in inputs {
            let value = try await input.read(for: invocation, data)
            invocation.inputs.append((input.name, value))
        }
    }

    /// Writes the outputs out of a result.
    ///
    /// `$return` takes the whole result. Each other output takes the property of its name, when the result is a JSON
    /// object that has it; without `$return`, a single output takes the whole result when there is no such property.
    public func write(_ response: ScoringResponse, for invocation: Invocation) async throws(InvocationFailure) {
        guard !outputs.isEmpty else { return }
        let data = bindingData(of: invocation)
        let result = Self.result(of: response)
        for output in outputs {
            guard let value = value(of: output.name, in: result) else { continue }
            try await output.write(value, for: invocation, data)
        }
    }

    private func value(of name: String, in result: OutputValue) -> OutputValue? {
        if name == "$return" { return result }
        if case .json(let json) = result, let members = json.members,
            let member = members.last(where: { $0.name == name })
                ?? members.last(where: { $0.name.lowercased() == name.lowercased() })
        {
            return .json(member.value)
        }
        return !hasReturn && outputs.count == 1 ? result : nil
    }

    /// A function's result as its outputs take it.
    public static func result(of response: ScoringResponse) -> OutputValue {
        let isJSON = response.contentType?.contains("json") ?? false
        guard isJSON, let json = try? JSONParser.parse(response.body) else { return .bytes(response.body) }
        return .json(json)
    }
}

/// What binding expressions can name: the trigger's data; for HTTP, lowest first, properties of a JSON body, the query,
/// route parameters, and `Query` and `Headers` as objects (HttpTriggerAttributeBindingProvider).
@EventLoop
public func bindingData(of invocation: Invocation) -> BindingData {
    guard let head = invocation.event.head else { return invocation.event.data }
    // An input takes the body's place later on.
    if let known = invocation.bindingData { return known }
    var data = BindingData()
    if let json = try? JSONParser.parse(invocation.event.body) { data.set(properties: json) }
    let query = PercentCoding.query(head.query)
    data.set("Query", .object(query.map { ($0.name, .text($0.value)) }))
    data.set("Headers", .object(head.allFields.map { ($0.name, .text($0.value)) }))
    for (name, value) in query where name.lowercased() != "code" { data.set(name, value) }
    for parameter in invocation.event.routeParameters {
        if let value = parameter.value { data.set(parameter.name, value) }
    }
    invocation.bindingData = data
    return data
}
