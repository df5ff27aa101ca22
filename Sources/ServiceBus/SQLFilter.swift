/// The SQL-like conditions of subscription rules: comparison, AND, OR, NOT, LIKE, IN, IS NULL, EXISTS, arithmetic.

/// A value of a message's property or of a condition's literal.
enum FilterValue: Equatable {
    case text(String)
    case number(Double)
    case truth(Bool)
    /// No value: comparisons with it are neither true nor false.
    case unknown
}

/// A parsed condition.
struct SQLFilter {
    indirect enum Expression {
        case literal(FilterValue)
        case property(String)
        case not(Expression)
        case negative(Expression)
        case binary(String, Expression, Expression)
        case like(Expression, pattern: Expression, escape: Character?)
        case isIn(Expression, [Expression])
        case isNull(Expression)
        case exists(String)
    }

    private let root: Expression

    /// Characters of a condition, and how deep it may nest.
    static let characterLimit = 1024
    static let depthLimit = 32

    /// Why a text is no condition.
    struct SyntaxError: Error, Equatable {
        let reason: String
    }

    init(_ text: String) throws(SyntaxError) {
        guard text.count <= Self.characterLimit else {
            throw SyntaxError(reason: "the condition has more than \(Self.characterLimit) characters")
        }
        var parser = SQLParser(tokens: try SQLToken.split(text))
        root = try parser.expression(depth: 0)
        guard parser.isAtEnd else { throw SyntaxError(reason: "'\(parser.here)' was not expected") }
    }

    /// Whether a message meets the condition; `property` gives its values by name.
    func matches(_ property: (String) -> FilterValue) -> Bool { value(root, property) == .truth(true) }

    private func value(_ expression: Expression, _ property: (String) -> FilterValue) -> FilterValue {
        switch expression {
        case .literal(let value): return value
        case .property(let name): return property(name)
        case .exists(let name): return .truth(property(name) != .unknown)
        case .isNull(let inner): return .truth(value(inner, property) == .unknown)
        case .not(let inner):
            guard case .truth(let truth) = value(inner, property) else { return .unknown }
            return .truth(!truth)
        case .negative(let inner):
            guard case .number(let number) = value(inner, property) else { return .unknown }
            return .number(-number)
        case .isIn(let inner, let list):
            let wanted = value(inner, property)
            if wanted == .unknown { return .unknown }
            return .truth(list.contains { value($0, property) == wanted })
        case .like(let inner, let pattern, let escape):
            guard case .text(let text) = value(inner, property), case .text(let pattern) = value(pattern, property)
            else { return .unknown }
            return .truth(Self.like(Array(text)[...], Array(pattern)[...], escape))
        case .binary(let sign, let left, let right):
            return Self.apply(sign, value(left, property), value(right, property))
        }
    }

    private static func apply(_ sign: String, _ left: FilterValue, _ right: FilterValue) -> FilterValue {
        switch (sign, left, right) {
        case ("AND", .truth(false), _), ("AND", _, .truth(false)): return .truth(false)
        case ("AND", .truth(true), .truth(true)): return .truth(true)
        case ("OR", .truth(true), _), ("OR", _, .truth(true)): return .truth(true)
        case ("OR", .truth(false), .truth(false)): return .truth(false)
        case (_, .unknown, _), (_, _, .unknown): return .unknown
        case ("=", _, _): return .truth(left == right)
        case ("<>", _, _), ("!=", _, _): return .truth(left != right)
        case ("+", .text(let a), .text(let b)): return .text(a + b)
        case (_, .number(let a), .number(let b)):
            switch sign {
            case "<": return .truth(a < b)
            case "<=": return .truth(a <= b)
            case ">": return .truth(a > b)
            case ">=": return .truth(a >= b)
            case "+": return .number(a + b)
            case "-": return .number(a - b)
            case "*": return .number(a * b)
            case "/": return b == 0 ? .unknown : .number(a / b)
            case "%": return b == 0 ? .unknown : .number(a.truncatingRemainder(dividingBy: b))
            default: return .unknown
            }
        case (_, .text(let a), .text(let b)):
            switch sign {
            case "<": return .truth(a < b)
            case "<=": return .truth(a <= b)
            case ">": return .truth(a > b)
            case ">=": return .truth(a >= b)
            default: return .unknown
            }
        default: return .unknown
        }
    }

    /// `%` is any characters, `_` one. Goes back to the last `%` only, so it takes no exponential time.
    private static func like(_ text: ArraySlice<Character>, _ pattern: ArraySlice<Character>, _ escape: Character?)
        -> Bool
    {
        var signs: [(character: Character, isLiteral: Bool)] = []
        var rest = pattern
        while let next = rest.popFirst() {
            if next == escape, let literal = rest.popFirst() {
                signs.append((literal, true))
            } else {
                signs.append((next, false))
            }
        }
        let characters = Array(text)
        var (at, sign, mark, star) = (0, 0, 0, -1)
        while at < characters.count {
            if sign < signs.count, !signs[sign].isLiteral, signs[sign].character == "%" {
                (star, mark) = (sign, at)
                sign += 1
            } else if sign < signs.count,
                (!signs[sign].isLiteral && signs[sign].character == "_") || signs[sign].character == characters[at]
            {
                at += 1
                sign += 1
            } else if star >= 0 {
                mark += 1
                (at, sign) = (mark, star + 1)
            } else {
                return false
            }
        }
        return signs[sign...].allSatisfy { !$0.isLiteral && $0.character == "%" }
    }
}

/// A word, a sign, a number or a text in quotes.
private enum SQLToken: Equatable {
    case word(String)
    case sign(String)
    case number(Double)
    case text(String)

    static func split(_ text: String) throws(SQLFilter.SyntaxError) -> [SQLToken] {
        var tokens: [SQLToken] = []
        var rest = Substring(text)
        while let first = rest.first {
            if first.isWhitespace {
                rest.removeFirst()
            } else if first == "'" {
                var content = ""
                rest.removeFirst()
                while true {
                    guard let next = rest.popFirst() else {
                        throw SQLFilter.SyntaxError(reason: "a text in quotes does not end")
                    }
                    if next != "'" {
                        content.append(next)
                    } else if rest.first == "'" {
                        content.append("'")
                        rest.removeFirst()
                    } else {
                        break
                    }
                }
                tokens.append(.text(content))
            } else if first.isNumber {
                let digits = rest.prefix { $0.isNumber || $0 == "." }
                guard let number = Double(digits) else {
                    throw SQLFilter.SyntaxError(reason: "'\(digits)' is no number")
                }
                tokens.append(.number(number))
                rest = rest.dropFirst(digits.count)
            } else if first.isLetter || first == "_" || first == "[" || first == "\"" {
                tokens.append(.word(try word(&rest)))
            } else {
                let sign = ["<=", ">=", "<>", "!="].first { rest.hasPrefix($0) } ?? String(first)
                guard "<=>=<>!=()+-*/%,=".contains(sign) else {
                    throw SQLFilter.SyntaxError(reason: "'\(sign)' was not expected")
                }
                tokens.append(.sign(sign))
                rest = rest.dropFirst(sign.count)
            }
        }
        return tokens
    }

    private static func word(_ rest: inout Substring) throws(SQLFilter.SyntaxError) -> String {
        guard let first = rest.first, first == "[" || first == "\"" else {
            let word = rest.prefix { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "." || $0 == "-" && false }
            rest = rest.dropFirst(word.count)
            return String(word)
        }
        rest.removeFirst()
        let end: Character = first == "[" ? "]" : "\""
        guard let close = rest.firstIndex(of: end) else {
            throw SQLFilter.SyntaxError(reason: "a name in brackets does not end")
        }
        let word = String(rest[..<close])
        rest = rest[rest.index(after: close)...]
        return word
    }
}

private struct SQLParser {
    let tokens: [SQLToken]
    private var position = 0

    init(tokens: [SQLToken]) { self.tokens = tokens }

    var isAtEnd: Bool { position == tokens.count }
    var here: String { isAtEnd ? "the end" : "\(tokens[position])" }

    private mutating func take(word: String) -> Bool {
        guard position < tokens.count, case .word(let text) = tokens[position], text.uppercased() == word else {
            return false
        }
        position += 1
        return true
    }

    private mutating func take(signs: [String]) -> String? {
        guard position < tokens.count, case .sign(let text) = tokens[position], signs.contains(text) else { return nil }
        position += 1
        return text
    }

    private mutating func need(_ sign: String) throws(SQLFilter.SyntaxError) {
        guard take(signs: [sign]) != nil else {
            throw SQLFilter.SyntaxError(reason: "'\(sign)' was expected in place of \(here)")
        }
    }

    mutating func expression(depth: Int) throws(SQLFilter.SyntaxError) -> SQLFilter.Expression {
        guard depth < SQLFilter.depthLimit else { throw SQLFilter.SyntaxError(reason: "the condition nests too deep") }
        var left = try conjunction(depth)
        while take(word: "OR") { left = .binary("OR", left, try conjunction(depth)) }
        return left
    }

    private mutating func conjunction(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLFilter.Expression {
        var left = try negation(depth)
        while take(word: "AND") { left = .binary("AND", left, try negation(depth)) }
        return left
    }

    private mutating func negation(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLFilter.Expression {
        guard depth < SQLFilter.depthLimit else { throw SQLFilter.SyntaxError(reason: "the condition nests too deep") }
        return take(word: "NOT") ? .not(try negation(depth + 1)) : try comparison(depth)
    }

    private mutating func comparison(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLFilter.Expression {
        let left = try sum(depth)
        if let sign = take(signs: ["=", "<>", "!=", "<", "<=", ">", ">="]) {
            return .binary(sign, left, try sum(depth))
        }
        if take(word: "IS") {
            let isNegated = take(word: "NOT")
            guard take(word: "NULL") else { throw SQLFilter.SyntaxError(reason: "NULL was expected after IS") }
            return isNegated ? .not(.isNull(left)) : .isNull(left)
        }
        let isNegated = take(word: "NOT")
        var result: SQLFilter.Expression
        if take(word: "LIKE") {
            let pattern = try sum(depth)
            var escape: Character?
            if take(word: "ESCAPE"), position < tokens.count, case .text(let text) = tokens[position] {
                escape = text.first
                position += 1
            }
            result = .like(left, pattern: pattern, escape: escape)
        } else if take(word: "IN") {
            try need("(")
            var list = [try sum(depth)]
            while take(signs: [","]) != nil { list.append(try sum(depth)) }
            try need(")")
            result = .isIn(left, list)
        } else {
            guard !isNegated else { throw SQLFilter.SyntaxError(reason: "LIKE or IN was expected after NOT") }
            return left
        }
        return isNegated ? .not(result) : result
    }

    private mutating func sum(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLFilter.Expression {
        var left = try product(depth)
        while let sign = take(signs: ["+", "-"]) { left = .binary(sign, left, try product(depth)) }
        return left
    }

    private mutating func product(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLFilter.Expression {
        var left = try atom(depth)
        while let sign = take(signs: ["*", "/", "%"]) { left = .binary(sign, left, try atom(depth)) }
        return left
    }

    private mutating func atom(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLFilter.Expression {
        guard depth < SQLFilter.depthLimit else { throw SQLFilter.SyntaxError(reason: "the condition nests too deep") }
        guard position < tokens.count else { throw SQLFilter.SyntaxError(reason: "a value was expected at the end") }
        position += 1
        switch tokens[position - 1] {
        case .number(let number): return .literal(.number(number))
        case .text(let text): return .literal(.text(text))
        case .sign("("):
            let inner = try expression(depth: depth + 1)
            try need(")")
            return inner
        case .sign("-"): return .negative(try atom(depth + 1))
        case .sign("+"): return try atom(depth + 1)
        case .sign(let sign): throw SQLFilter.SyntaxError(reason: "'\(sign)' was not expected")
        case .word(let word):
            switch word.uppercased() {
            case "TRUE": return .literal(.truth(true))
            case "FALSE": return .literal(.truth(false))
            case "NULL": return .literal(.unknown)
            case "EXISTS":
                try need("(")
                guard position < tokens.count, case .word(let name) = tokens[position] else {
                    throw SQLFilter.SyntaxError(reason: "a property was expected after EXISTS")
                }
                position += 1
                try need(")")
                return .exists(name)
            default: return .property(word)
            }
        }
    }
}
