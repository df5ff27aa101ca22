/// Binding expressions: text with `{name}`, as in `path`, `queueName` and the like.
///
/// Grammar, messages and built-in values are those of the WebJobs SDK (BindingTemplateParser,
/// BindingParameterResolver, SystemBindingData).
internal import Diagnostics
internal import EventLoops
internal import Glibc

/// Why a template cannot be read or resolved.
public struct BindingTemplateError: Error, Equatable, Sendable {
    public let message: String

    public init(_ message: String) { self.message = message }
}

/// A template, read once and resolved for each event.
public struct BindingTemplate: Sendable, Equatable {
    /// A piece of a template.
    public enum Part: Sendable, Equatable {
        case literal(String)
        /// A name, its dotted rest, and a format.
        case expression(names: [String], format: String?)
    }

    public let text: String
    public let parts: [Part]

    /// - Throws: with the SDK's message, when brackets do not match or a name is none.
    public init(_ text: String) throws(BindingTemplateError) {
        self.text = text
        var parts: [Part] = []
        var literal = ""
        let characters = Array(text)
        var index = 0
        while index < characters.count {
            let character = characters[index]
            guard character == "{" || character == "}" else {
                literal.append(character)
                index += 1
                continue
            }
            if index + 1 < characters.count, characters[index + 1] == character {
                literal.append(character)
                index += 2
                continue
            }
            let end = characters[(index + 1)...].firstIndex { $0 == "{" || $0 == "}" }
            guard character == "{", let end, characters[end] == "}" else {
                let missing = character == "{" ? "closing" : "opening"
                throw BindingTemplateError(
                    "Invalid template '\(text)'. Missing \(missing) bracket at position \(index + 1).")
            }
            guard end > index + 1 else {
                throw BindingTemplateError(
                    "Invalid template '\(text)'. The parameter name at position \(index + 1) is empty.")
            }
            if !literal.isEmpty { parts.append(.literal(literal)) }
            literal = ""
            parts.append(try Self.expression(String(characters[(index + 1)..<end]), in: text))
            index = end + 1
        }
        if !literal.isEmpty { parts.append(.literal(literal)) }
        self.parts = parts
    }

    private static func expression(_ inside: String, in text: String) throws(BindingTemplateError) -> Part {
        let halves = inside.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let format = halves.count == 2 ? String(halves[1]) : nil
        let name = String(halves[0])
        if BuiltIn(name) != nil {
            if BuiltIn(name) == .dateTime, let format { _ = try DateFormat(format) }
            return .expression(names: [name], format: format)
        }
        let names = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard let first = names.first, isIdentifier(first), names.dropFirst().allSatisfy({ !$0.isEmpty }) else {
            throw BindingTemplateError("Invalid template '\(text)'. The parameter name '\(name)' is invalid.")
        }
        return .expression(names: names, format: format)
    }

    static func isIdentifier(_ name: String) -> Bool {
        guard let first = name.unicodeScalars.first, first.properties.isAlphabetic || first == "_" else { return false }
        return name.unicodeScalars.allSatisfy {
            $0.properties.isAlphabetic || $0.properties.numericType == .decimal || $0 == "_"
        }
    }

    /// True when there is nothing to resolve.
    public var isLiteral: Bool { parts.allSatisfy { if case .literal = $0 { true } else { false } } }

    /// The first names of all expressions, without built-in values.
    public var names: [String] {
        parts.compactMap { part in
            guard case .expression(let names, _) = part, BuiltIn(names[0]) == nil else { return nil }
            return names[0]
        }
    }

    /// The text with every expression replaced by its value.
    ///
    /// - Throws: `No value for named parameter '<x>'.`
    public func resolve(_ data: BindingData, functionName: String) throws(BindingTemplateError) -> String {
        if parts.count == 1, case .literal(let text) = parts[0] { return text }
        var result = ""
        for part in parts {
            switch part {
            case .literal(let text): result += text
            case .expression(let names, let format): result += try value(names, format, data, functionName)
            }
        }
        return result
    }

    private func value(
        _ names: [String], _ format: String?, _ data: BindingData, _ functionName: String
    ) throws(BindingTemplateError) -> String {
        if let found = data[names[0]] {
            var value = found
            for name in names.dropFirst() {
                guard let part = value[name] else {
                    throw BindingTemplateError("No value for named parameter '\(names.joined(separator: "."))'.")
                }
                value = part
            }
            return try value.text(format: format)
        }
        if let builtIn = BuiltIn(names[0]) { return try builtIn.text(format: format) }
        if names.count == 2, names[0].lowercased() == "sys" {
            switch names[1].lowercased() {
            case "methodname": return functionName
            case "utcnow": return try BuiltIn.dateTime.text(format: format)
            case "randguid": return try BuiltIn.randomGUID.text(format: format)
            default: break
            }
        }
        throw BindingTemplateError("No value for named parameter '\(names.joined(separator: "."))'.")
    }
}

/// Values that need no trigger; matched by the beginning of the name, in any case.
private enum BuiltIn {
    case randomGUID, dateTime

    init?(_ name: String) {
        let lower = name.lowercased()
        if lower.hasPrefix("rand-guid") {
            self = .randomGUID
        } else if lower.hasPrefix("datetime") {
            self = .dateTime
        } else {
            return nil
        }
    }

    func text(format: String?) throws(BindingTemplateError) -> String {
        switch self {
        case .dateTime:
            var now = timespec()
            clock_gettime(CLOCK_REALTIME, &now)
            let seconds = Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
            return try DateFormat(format ?? DateFormat.templateDefault).text(of: seconds)
        case .randomGUID:
            var random = RandomBytes()
            let text = InvocationID(from: &random).description
            switch format?.uppercased() {
            case nil, "", "D": return text
            case "N": return text.filter { $0 != "-" }
            case "B": return "{\(text)}"
            case "P": return "(\(text))"
            default: throw BindingTemplateError("'\(format ?? "")' is not a format of rand-guid; it is N, D, B or P.")
            }
        }
    }
}
