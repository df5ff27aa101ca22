/// The simple paths of `--query`: the part of JMESPath that the tutorials use.
public import JSONText

/// A parsed query.
public indirect enum ResourceQuery: Sendable {
    case current
    case member(ResourceQuery, String)
    case index(ResourceQuery, Int)
    /// `[]`: each element; what follows is done for each.
    case each(ResourceQuery, then: ResourceQuery)
    /// `[?name=='value']`.
    case filter(ResourceQuery, String, String, then: ResourceQuery)
    /// `{a: x, b: y}`.
    case record(ResourceQuery, [(String, ResourceQuery)])
    /// `[a, b]`.
    case list(ResourceQuery, [ResourceQuery])

    /// Longest query, in characters.
    public static let lengthLimit = 1000

    /// Parses; nil for what is not understood.
    public init?(_ text: String) {
        guard text.count <= Self.lengthLimit else { return nil }
        var parser = QueryParser(rest: text[...])
        guard let query = parser.expression(depth: 0), parser.skipped().isEmpty else { return nil }
        self = query
    }

    /// What the query finds; null where there is nothing.
    public func apply(_ value: JSONValue) -> JSONValue {
        switch self {
        case .current: return value
        case .member(let inner, let name): return inner.apply(value)[name] ?? .null
        case .index(let inner, let index):
            guard let elements = inner.apply(value).elements else { return .null }
            let position = index < 0 ? elements.count + index : index
            return elements.indices.contains(position) ? elements[position] : .null
        case .each(let inner, let then):
            guard let elements = inner.apply(value).elements else { return .null }
            return .list(elements.map { then.apply($0) }.filter { !$0.isNull })
        case .filter(let inner, let name, let wanted, let then):
            guard let elements = inner.apply(value).elements else { return .null }
            return .list(elements.filter { $0[name]?.string == wanted }.map { then.apply($0) }.filter { !$0.isNull })
        case .record(let inner, let members):
            let base = inner.apply(value)
            if base.isNull { return .null }
            return JSONValue(
                .object(members.map { JSONValue.Member(name: $0.0, nameOffset: 0, value: $0.1.apply(base)) }))
        case .list(let inner, let members):
            let base = inner.apply(value)
            return base.isNull ? .null : .list(members.map { $0.apply(base) })
        }
    }
}

private struct QueryParser {
    var rest: Substring

    private static let depthLimit = 20

    mutating func skipped() -> Substring {
        rest = rest.drop { $0 == " " }
        return rest
    }

    private mutating func take(_ text: String) -> Bool {
        guard skipped().hasPrefix(text) else { return false }
        rest = rest.dropFirst(text.count)
        return true
    }

    private mutating func name() -> String? {
        _ = skipped()
        if rest.first == "\"" {
            let body = rest.dropFirst().prefix { $0 != "\"" }
            rest = rest.dropFirst(body.count + 1)
            guard rest.first == "\"" else { return nil }
            rest = rest.dropFirst()
            return String(body)
        }
        let body = rest.prefix { $0.isLetter || $0.isNumber || $0 == "_" }
        guard !body.isEmpty, body.first?.isNumber == false else { return nil }
        rest = rest.dropFirst(body.count)
        return String(body)
    }

    mutating func expression(depth: Int) -> ResourceQuery? {
        guard depth < Self.depthLimit else { return nil }
        var query = ResourceQuery.current
        if take("@") {
            query = .current
        } else if skipped().first == "{" || skipped().first == "[" {
            guard let first = suffix(of: .current, depth) else { return nil }
            query = first
        } else {
            guard let first = name() else { return nil }
            query = .member(.current, first)
        }
        return continuation(of: query, depth)
    }

    private mutating func continuation(of start: ResourceQuery, _ depth: Int) -> ResourceQuery? {
        var query = start
        while let next = skipped().first {
            if next == "[" {
                guard let longer = suffix(of: query, depth) else { return nil }
                query = longer
            } else if next == "." {
                rest = rest.dropFirst()
                if skipped().first == "{" || skipped().first == "[" {
                    guard let longer = suffix(of: query, depth) else { return nil }
                    query = longer
                } else {
                    guard let member = name() else { return nil }
                    query = .member(query, member)
                }
            } else {
                break
            }
        }
        return query
    }

    private mutating func suffix(of query: ResourceQuery, _ depth: Int) -> ResourceQuery? {
        guard depth < Self.depthLimit else { return nil }
        if take("{") {
            var members: [(String, ResourceQuery)] = []
            repeat {
                guard let key = name(), take(":"), let value = expression(depth: depth + 1) else { return nil }
                members.append((key, value))
            } while take(",")
            return take("}") ? .record(query, members) : nil
        }
        guard take("[") else { return nil }
        if take("]") || take("*]") {
            guard let then = continuation(of: .current, depth + 1) else { return nil }
            return .each(query, then: then)
        }
        if take("?") {
            guard let key = name(), take("=="), let quote = skipped().first, quote == "'" || quote == "`" else {
                return nil
            }
            rest = rest.dropFirst()
            let value = rest.prefix { $0 != quote }
            rest = rest.dropFirst(value.count + 1)
            guard take("]"), let then = continuation(of: .current, depth + 1) else { return nil }
            return .filter(query, key, value.filter { $0 != "\"" }, then: then)
        }
        let digits = skipped().prefix { $0.isNumber || $0 == "-" }
        if let index = Int(digits) {
            rest = rest.dropFirst(digits.count)
            return take("]") ? .index(query, index) : nil
        }
        var members: [ResourceQuery] = []
        repeat {
            guard let value = expression(depth: depth + 1) else { return nil }
            members.append(value)
        } while take(",")
        return take("]") ? .list(query, members) : nil
    }
}
