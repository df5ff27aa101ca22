/// Route templates as ASP.NET Core reads them: literals, parameters, constraints, defaults, catch-all.

/// Why a template is none.
public struct RouteTemplateError: Error, Equatable, Sendable {
    public let reason: String
    public let remedy: String?

    init(_ reason: String, remedy: String? = nil) {
        self.reason = reason
        self.remedy = remedy
    }
}

/// One template, parsed.
public struct RouteTemplate {
    /// A placeholder.
    public struct Parameter {
        public let name: String
        let isOptional: Bool
        let defaultValue: String?
        let isCatchAll: Bool
        let constraints: [RouteConstraint]
    }

    enum Part {
        /// Text that must stand there; lower case.
        case literal(String)
        case parameter(Parameter)
    }

    /// The text it was parsed from.
    public let text: String
    let segments: [[Part]]

    /// Segments a template may have.
    public static let segmentLimit = 64

    /// - Throws: the first thing wrong with it.
    public init(_ text: String) throws(RouteTemplateError) {
        self.text = text
        if text.utf8.contains(0x20) {
            throw RouteTemplateError(
                "Route template cannot contain spaces. ('\(text)')", remedy: "write %20-free literals, or a parameter")
        }
        var body = text[...]
        if body.hasSuffix("/") { body = body.dropLast() }
        if body.isEmpty {
            segments = []
            return
        }
        var parsed: [[Part]] = []
        for segment in try Self.splitSegments(body) { parsed.append(try Self.parseSegment(segment, of: text)) }
        guard parsed.count <= Self.segmentLimit else {
            throw RouteTemplateError("the route has more than \(Self.segmentLimit) segments")
        }
        segments = parsed
        try checkPositions()
    }

    /// All parameters in order.
    public var parameters: [Parameter] {
        segments.joined().compactMap { if case .parameter(let parameter) = $0 { parameter } else { nil } }
    }

    /// How many segments it has.
    public var segmentCount: Int { segments.count }

    /// The literal segments before the first one that holds a parameter.
    public var literalPrefix: [String] {
        var prefix: [String] = []
        for segment in segments {
            guard segment.count == 1, case .literal(let text) = segment[0] else { break }
            prefix.append(text)
        }
        return prefix
    }

    // MARK: Parsing

    /// Splits at slashes that stand outside braces (a regular expression may hold some).
    private static func splitSegments(_ text: Substring) throws(RouteTemplateError) -> [Substring] {
        var segments: [Substring] = []
        var start = text.startIndex
        var index = start
        while index < text.endIndex {
            if text[index] == "{" {
                index = try endOfBraces(text, from: index)
                continue
            }
            if text[index] == "/" {
                segments.append(text[start..<index])
                start = text.index(after: index)
            }
            index = text.index(after: index)
        }
        segments.append(text[start...])
        if segments.contains(where: \.isEmpty) {
            throw RouteTemplateError(
                "Route template cannot contain consecutive '/'. ('\(text)')",
                remedy: "a route starts without '/' and has one '/' between segments")
        }
        return segments
    }

    /// The index just past `{{`, or past the parameter that starts at `start`.
    private static func endOfBraces(_ text: Substring, from start: Substring.Index) throws(RouteTemplateError)
        -> Substring.Index
    {
        var index = text.index(after: start)
        if index < text.endIndex, text[index] == "{" { return text.index(after: index) }
        while index < text.endIndex {
            let next = text.index(after: index)
            let doubled = next < text.endIndex && text[next] == text[index]
            switch text[index] {
            case "{" where doubled: index = text.index(after: next)
            case "}" where doubled && text[next...].dropFirst().contains("}"): index = text.index(after: next)
            case "}": return next
            case "{": throw RouteTemplateError("Route template has an unmatched '{'. ('\(text)')")
            default: index = next
            }
        }
        throw RouteTemplateError(
            "Route template has an unmatched '{'. ('\(text)')",
            remedy: "close the parameter with '}', or write '{{' for a brace")
    }

    private static func parseSegment(_ segment: Substring, of text: String) throws(RouteTemplateError) -> [Part] {
        var parts: [Part] = []
        var literal = ""
        var index = segment.startIndex
        while index < segment.endIndex {
            let next = segment.index(after: index)
            let doubled = next < segment.endIndex && segment[next] == segment[index]
            switch segment[index] {
            case "{" where !doubled:
                let end = try endOfBraces(segment, from: index)
                if !literal.isEmpty { parts.append(.literal(literal.lowercased())) }
                literal = ""
                if case .parameter? = parts.last {
                    throw RouteTemplateError("two parameters stand side by side without text between them ('\(text)')")
                }
                parts.append(.parameter(try parseParameter(segment[next..<segment.index(before: end)], of: text)))
                index = end
            case "{", "}":
                guard doubled else {
                    throw RouteTemplateError(
                        "Route template has an unmatched closing brace '}'. ('\(text)')",
                        remedy: "write '}}' for a brace")
                }
                literal.append(segment[index])
                index = segment.index(after: next)
            case "?": throw RouteTemplateError("a route cannot contain '?' outside a parameter ('\(text)')")
            default:
                literal.append(segment[index])
                index = next
            }
        }
        if !literal.isEmpty { parts.append(.literal(literal.lowercased())) }
        return parts
    }

    private static func parseParameter(_ text: Substring, of template: String) throws(RouteTemplateError) -> Parameter {
        var rest = text
        let isCatchAll = rest.hasPrefix("*")
        while rest.hasPrefix("*") { rest = rest.dropFirst() }
        let nameEnd = rest.firstIndex { $0 == ":" || $0 == "=" || $0 == "?" } ?? rest.endIndex
        let name = String(rest[..<nameEnd])
        guard !name.isEmpty else {
            throw RouteTemplateError("Route template has an empty parameter '{}'. ('\(template)')")
        }
        guard name.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "_" || $0 == "-" }) else {
            throw RouteTemplateError(
                "'\(name)' is not a parameter name ('\(template)')", remedy: "letters, digits, _ and -")
        }
        rest = rest[nameEnd...]
        var constraints: [RouteConstraint] = []
        while rest.hasPrefix(":") {
            let (constraint, remainder) = try RouteConstraint.parse(rest.dropFirst(), template: template)
            constraints.append(constraint)
            rest = remainder
        }
        var isOptional = false
        var defaultValue: String?
        if rest.hasPrefix("=") {
            defaultValue = String(rest.dropFirst())
        } else if rest == "?" {
            isOptional = true
        } else if !rest.isEmpty {
            throw RouteTemplateError("'\(rest)' is left over in the parameter '\(name)' ('\(template)')")
        }
        return Parameter(
            name: name, isOptional: isOptional, defaultValue: defaultValue, isCatchAll: isCatchAll,
            constraints: constraints)
    }

    private func checkPositions() throws(RouteTemplateError) {
        var names: Set<String> = []
        for (index, segment) in segments.enumerated() {
            for (position, part) in segment.enumerated() {
                guard case .parameter(let parameter) = part else { continue }
                guard names.insert(parameter.name.lowercased()).inserted else {
                    throw RouteTemplateError("the parameter '\(parameter.name)' appears twice ('\(text)')")
                }
                let isLast = index == segments.count - 1 && position == segment.count - 1
                if parameter.isCatchAll, !isLast || segment.count > 1 {
                    throw RouteTemplateError("a catch-all parameter must be the whole last segment ('\(text)')")
                }
                if segment.count > 1, parameter.isOptional {
                    var followsDot = false
                    if position > 0, case .literal(let before) = segment[position - 1] {
                        followsDot = before.hasSuffix(".")
                    }
                    guard position == segment.count - 1, followsDot else {
                        throw RouteTemplateError(
                            "an optional parameter inside a segment must be its end and follow a '.' ('\(text)')")
                    }
                }
            }
        }
    }
}
