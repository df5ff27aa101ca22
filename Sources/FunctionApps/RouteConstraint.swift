/// The inline constraints of route parameters, `{id:int:min(1)}`.

/// One constraint.
enum RouteConstraint {
    case int, bool, datetime, decimal, double, float, guid, long, alpha, required, file, nonfile
    case minimumLength(Int), maximumLength(Int), length(ClosedRange<Int>)
    case minimum(Int), maximum(Int), range(ClosedRange<Int>)
    case regex(Regex<AnyRegexOutput>)

    /// Parses the constraint at the start of `text` and returns what follows it.
    static func parse(_ text: Substring, template: String) throws(RouteTemplateError) -> (RouteConstraint, Substring) {
        let nameEnd = text.firstIndex { $0 == "(" || $0 == ":" || $0 == "=" || $0 == "?" } ?? text.endIndex
        let name = text[..<nameEnd].lowercased()
        guard nameEnd < text.endIndex, text[nameEnd] == "(" else {
            return (try plain(name, template), text[nameEnd...])
        }
        // The argument ends at the last ')' before the next constraint: a regular expression may hold some.
        var depth = 0
        var index = nameEnd
        while index < text.endIndex {
            if text[index] == "(" { depth += 1 }
            if text[index] == ")" {
                depth -= 1
                if depth == 0 { break }
            }
            index = text.index(after: index)
        }
        guard index < text.endIndex else {
            throw RouteTemplateError("the constraint '\(name)' has no ')' ('\(template)')")
        }
        let argument = String(text[text.index(after: nameEnd)..<index])
        return (try withArgument(name, argument, template), text[text.index(after: index)...])
    }

    private static func plain(_ name: String, _ template: String) throws(RouteTemplateError) -> RouteConstraint {
        switch name {
        case "int": .int
        case "bool": .bool
        case "datetime": .datetime
        case "decimal": .decimal
        case "double": .double
        case "float": .float
        case "guid": .guid
        case "long": .long
        case "alpha": .alpha
        case "required": .required
        case "file": .file
        case "nonfile": .nonfile
        default:
            throw RouteTemplateError(
                "The constraint '\(name)' is unknown ('\(template)')",
                remedy: "int, bool, datetime, decimal, double, float, guid, long, alpha, required, file, nonfile, "
                    + "minlength(n), maxlength(n), length(n), min(n), max(n), range(a,b) or regex(…)")
        }
    }

    private static func withArgument(
        _ name: String, _ argument: String, _ template: String
    ) throws(RouteTemplateError) -> RouteConstraint {
        if name == "regex" {
            // A template doubles braces inside an expression.
            let pattern = argument.replacing("{{", with: "{").replacing("}}", with: "}")
            guard let regex = try? Regex(pattern) else {
                throw RouteTemplateError("'\(pattern)' is not a regular expression ('\(template)')")
            }
            return .regex(regex.ignoresCase())
        }
        let numbers = argument.split(separator: ",").map { Int($0.filter { $0 != " " }) }
        guard let first = numbers.first ?? nil, numbers.count <= 2, numbers.allSatisfy({ $0 != nil }) else {
            throw RouteTemplateError("the constraint '\(name)(\(argument))' needs whole numbers ('\(template)')")
        }
        let second = numbers.count == 2 ? numbers[1] ?? first : first
        guard first <= second else {
            throw RouteTemplateError("the constraint '\(name)(\(argument))' is empty ('\(template)')")
        }
        switch (name, numbers.count) {
        case ("minlength", 1): return .minimumLength(first)
        case ("maxlength", 1): return .maximumLength(first)
        case ("length", _): return .length(first...second)
        case ("min", 1): return .minimum(first)
        case ("max", 1): return .maximum(first)
        case ("range", 2): return .range(first...second)
        default: throw RouteTemplateError("The constraint '\(name)(\(argument))' is unknown ('\(template)')")
        }
    }

    /// Whether `value` satisfies it.
    func accepts(_ value: String) -> Bool {
        switch self {
        case .int: Int32(value) != nil
        case .long: Int64(value) != nil
        case .bool: value.lowercased() == "true" || value.lowercased() == "false"
        case .datetime: isDate(value)
        case .decimal: isPlainNumber(value, allowsExponent: false)
        case .double, .float: isPlainNumber(value, allowsExponent: true)
        case .guid: isGUID(value)
        case .alpha: value.utf8.allSatisfy { ($0 | 0x20) &- 0x61 < 26 }
        case .required: !value.isEmpty
        case .file: isFileName(value)
        case .nonfile: !isFileName(value)
        case .minimumLength(let count): value.count >= count
        case .maximumLength(let count): value.count <= count
        case .length(let range): range.contains(value.count)
        case .minimum(let bound): Int(value).map { $0 >= bound } ?? false
        case .maximum(let bound): Int(value).map { $0 <= bound } ?? false
        case .range(let range): Int(value).map { range.contains($0) } ?? false
        case .regex(let regex): (try? regex.firstMatch(in: value)) != nil
        }
    }
}

private func isPlainNumber(_ text: String, allowsExponent: Bool) -> Bool {
    let allowed = text.utf8.allSatisfy {
        (0x30...0x39).contains($0) || $0 == 0x2E || $0 == 0x2D || $0 == 0x2B || (allowsExponent && $0 | 0x20 == 0x65)
    }
    return allowed && Double(text) != nil
}

private func isFileName(_ value: String) -> Bool {
    let name = value.split(separator: "/", omittingEmptySubsequences: false).last ?? ""
    guard let dot = name.lastIndex(of: ".") else { return false }
    return name.index(after: dot) < name.endIndex
}

private func isGUID(_ value: String) -> Bool {
    var text = value[...]
    if (text.hasPrefix("{") && text.hasSuffix("}")) || (text.hasPrefix("(") && text.hasSuffix(")")) {
        text = text.dropFirst().dropLast()
    }
    let groups = text.split(separator: "-", omittingEmptySubsequences: false).map(\.count)
    guard groups == [32] || groups == [8, 4, 4, 4, 12] else { return false }
    return text.allSatisfy { $0 == "-" || $0.isHexDigit }
}

/// `yyyy-MM-dd`, optionally with a time `[T ]hh:mm[:ss[.f]][Z]`.
private func isDate(_ value: String) -> Bool {
    guard
        let match = value.wholeMatch(
            of: /(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?/)
    else { return false }
    guard let month = Int(match.2), let day = Int(match.3), (1...12).contains(month) else { return false }
    let days = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    guard (1...days[month - 1]).contains(day) else { return false }
    let hour = match.4.flatMap { Int($0) } ?? 0
    let minute = match.5.flatMap { Int($0) } ?? 0
    let second = match.6.flatMap { Int($0) } ?? 0
    return hour < 24 && minute < 60 && second < 60
}
