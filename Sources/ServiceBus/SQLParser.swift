/// From the text of a condition or an action to its expressions.

/// A word, a name in brackets, a sign, a number or a text in quotes.
enum SQLToken: Equatable {
    case word(String)
    case name(String)
    case parameter(String)
    case sign(String)
    case value(FilterValue)

    private static let signs = [
        "<=", ">=", "<>", "!=", "=", "<", ">", "(", ")", "+", "-", "*", "/", "%", ",", ".", ";",
    ]

    static func split(_ text: String) throws(SQLFilter.SyntaxError) -> [SQLToken] {
        var tokens: [SQLToken] = []
        var rest = Substring(text)
        while let first = rest.first {
            if first.isWhitespace {
                rest.removeFirst()
            } else if first == "'" {
                tokens.append(.value(.text(try quoted(&rest, until: "'"))))
            } else if first == "[" {
                tokens.append(.name(try quoted(&rest, until: "]")))
            } else if first == "\"" {
                tokens.append(.name(try quoted(&rest, until: "\"")))
            } else if ("0"..."9").contains(first) {
                tokens.append(.value(try number(&rest)))
            } else if first == "@" {
                rest.removeFirst()
                tokens.append(.parameter("@" + word(&rest)))
            } else if first.isLetter || first == "_" {
                tokens.append(.word(word(&rest)))
            } else {
                guard let sign = signs.first(where: { rest.hasPrefix($0) }) else {
                    throw SQLFilter.SyntaxError(reason: "'\(first)' was not expected")
                }
                tokens.append(.sign(sign))
                rest = rest.dropFirst(sign.count)
            }
        }
        return tokens
    }

    /// Text up to a closing sign, which twice stands for itself.
    private static func quoted(_ rest: inout Substring, until end: Character) throws(SQLFilter.SyntaxError) -> String {
        var content = ""
        rest.removeFirst()
        while let next = rest.popFirst() {
            guard next == end else {
                content.append(next)
                continue
            }
            guard rest.first == end else { return content }
            content.append(end)
            rest.removeFirst()
        }
        throw SQLFilter.SyntaxError(reason: "'\(end)' is missing at the end of a quotation")
    }

    private static func word(_ rest: inout Substring) -> String {
        let word = rest.prefix { $0.isLetter || $0.isNumber || $0 == "_" }
        rest = rest.dropFirst(word.count)
        return String(word)
    }

    /// Whole numbers are 64 bits wide; a point or an exponent makes a fraction.
    private static func number(_ rest: inout Substring) throws(SQLFilter.SyntaxError) -> FilterValue {
        let isDigit = { (character: Character) in ("0"..."9").contains(character) }
        var digits = rest.prefix(while: isDigit)
        var after = rest[digits.endIndex...]
        var isWhole = true
        if after.first == ".", after.dropFirst().first.map(isDigit) ?? false {
            isWhole = false
            after = after.dropFirst().drop(while: isDigit)
        }
        if after.first == "e" || after.first == "E" {
            var exponent = after.dropFirst()
            if exponent.first == "+" || exponent.first == "-" { exponent = exponent.dropFirst() }
            if exponent.first.map(isDigit) ?? false {
                isWhole = false
                after = exponent.drop(while: isDigit)
            }
        }
        digits = rest[..<after.startIndex]
        rest = after
        if let next = rest.first, next.isLetter || next.isNumber || next == "_" {
            throw SQLFilter.SyntaxError(reason: "'\(digits)\(next)' is no number")
        }
        if isWhole, let whole = Int64(digits) { return .integer(whole) }
        guard !isWhole, let number = Double(digits), number.isFinite else {
            throw SQLFilter.SyntaxError(reason: "'\(digits)' is no number of 64 bits")
        }
        return .number(number)
    }
}

/// Recursive descent, as deep as ``SQLFilter/depthLimit`` allows.
struct SQLParser {
    private let tokens: [SQLToken]
    private let parameters: [String: FilterValue]
    private var position = 0

    private static let reserved: Set<String> = [
        "AND", "OR", "NOT", "IS", "NULL", "IN", "LIKE", "ESCAPE", "EXISTS", "TRUE", "FALSE", "SET", "REMOVE",
    ]

    init(_ text: String, _ parameters: [String: FilterValue]) throws(SQLFilter.SyntaxError) {
        guard text.count <= SQLFilter.characterLimit else {
            throw SQLFilter.SyntaxError(reason: "the text has more than \(SQLFilter.characterLimit) characters")
        }
        tokens = try SQLToken.split(text)
        self.parameters = parameters
    }

    var isAtEnd: Bool { position == tokens.count }

    /// The next token as people know it.
    var here: String {
        guard !isAtEnd else { return "the end" }
        switch tokens[position] {
        case .word(let text), .name(let text), .parameter(let text), .sign(let text), .value(.text(let text)):
            return "'\(text)'"
        case .value(.integer(let value)): return "\(value)"
        case .value(.number(let value)): return "\(value)"
        case .value: return "a value"
        }
    }

    private func failure(_ text: String) -> SQLFilter.SyntaxError { SQLFilter.SyntaxError(reason: text) }

    private mutating func take(word: String) -> Bool {
        guard !isAtEnd, case .word(let text) = tokens[position], text.uppercased() == word else { return false }
        position += 1
        return true
    }

    private mutating func take(sign: String) -> Bool {
        guard !isAtEnd, tokens[position] == .sign(sign) else { return false }
        position += 1
        return true
    }

    private mutating func need(_ sign: String) throws(SQLFilter.SyntaxError) {
        guard take(sign: sign) else { throw failure("'\(sign)' was expected in place of \(here)") }
    }

    private func check(_ depth: Int) throws(SQLFilter.SyntaxError) {
        guard depth < SQLFilter.depthLimit else { throw failure("the text nests deeper than \(SQLFilter.depthLimit)") }
    }

    // MARK: Conditions

    mutating func expression(depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        try check(depth)
        var left = try conjunction(depth)
        while take(word: "OR") { left = .binary(.or, left, try conjunction(depth)) }
        return left
    }

    private mutating func conjunction(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        var left = try negation(depth)
        while take(word: "AND") { left = .binary(.and, left, try negation(depth)) }
        return left
    }

    private mutating func negation(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        try check(depth)
        return take(word: "NOT") ? .not(try negation(depth + 1)) : try comparison(depth)
    }

    private static let comparisons: [(String, SQLOperator)] = [
        ("=", .equal), ("<>", .unequal), ("!=", .unequal), ("<=", .lessOrEqual), (">=", .greaterOrEqual), ("<", .less),
        (">", .greater),
    ]

    private mutating func comparison(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        let left = try sum(depth)
        for (sign, meaning) in Self.comparisons where take(sign: sign) {
            return .binary(meaning, left, try sum(depth))
        }
        if take(word: "IS") {
            let isNegated = take(word: "NOT")
            guard take(word: "NULL") else { throw failure("NULL was expected after IS") }
            return isNegated ? .not(.isNull(left)) : .isNull(left)
        }
        let isNegated = take(word: "NOT")
        let result: SQLExpression
        if take(word: "LIKE") {
            let pattern = try sum(depth)
            result = .like(left, pattern: pattern, escape: take(word: "ESCAPE") ? try sum(depth) : nil)
        } else if take(word: "IN") {
            try need("(")
            var list = [try sum(depth)]
            while take(sign: ",") { list.append(try sum(depth)) }
            try need(")")
            result = .isIn(left, list)
        } else {
            guard !isNegated else { throw failure("LIKE or IN was expected after NOT") }
            return left
        }
        return isNegated ? .not(result) : result
    }

    // MARK: Values

    private mutating func sum(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        var left = try product(depth)
        while true {
            if take(sign: "+") {
                left = .binary(.arithmetic("+"), left, try product(depth))
            } else if take(sign: "-") {
                left = .binary(.arithmetic("-"), left, try product(depth))
            } else {
                return left
            }
        }
    }

    private mutating func product(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        var left = try atom(depth)
        while true {
            if take(sign: "*") {
                left = .binary(.arithmetic("*"), left, try atom(depth))
            } else if take(sign: "/") {
                left = .binary(.arithmetic("/"), left, try atom(depth))
            } else if take(sign: "%") {
                left = .binary(.arithmetic("%"), left, try atom(depth))
            } else {
                return left
            }
        }
    }

    private mutating func atom(_ depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        try check(depth)
        if take(sign: "(") {
            let inner = try expression(depth: depth + 1)
            try need(")")
            return inner
        }
        if take(sign: "-") { return .negative(try atom(depth + 1)) }
        if take(sign: "+") { return try atom(depth + 1) }
        guard !isAtEnd else { throw failure("a value was expected at the end") }
        switch tokens[position] {
        case .value(let value):
            position += 1
            return .literal(value)
        case .parameter(let name):
            guard let value = parameters.first(where: { $0.key.lowercased() == name.lowercased() })?.value else {
                throw failure("the parameter '\(name)' has no value")
            }
            position += 1
            return .literal(value)
        case .word(let word) where Self.reserved.contains(word.uppercased()): return try keyword(word, depth)
        case .word(let word) where position + 1 < tokens.count && tokens[position + 1] == .sign("("):
            return try function(word, depth)
        default: return .property(try property())
        }
    }

    private mutating func keyword(_ word: String, _ depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        switch word.uppercased() {
        case "TRUE":
            position += 1
            return .literal(.truth(true))
        case "FALSE":
            position += 1
            return .literal(.truth(false))
        case "NULL":
            position += 1
            return .literal(.unknown)
        case "EXISTS":
            position += 1
            try need("(")
            let name = try property()
            try need(")")
            return .exists(name)
        default: throw failure("a value was expected in place of '\(word)'; a property of that name stands in brackets")
        }
    }

    private mutating func function(_ word: String, _ depth: Int) throws(SQLFilter.SyntaxError) -> SQLExpression {
        position += 2
        let result: SQLExpression
        switch word.lowercased() {
        case "newid": result = .newID
        case "property", "p": result = .namedProperty(try expression(depth: depth + 1))
        default: throw failure("there is no function '\(word)'; there are newid, property and p")
        }
        try need(")")
        return result
    }

    /// `name`, `user.name` or `sys.name`; names that are no words stand in brackets or double quotes.
    private mutating func property() throws(SQLFilter.SyntaxError) -> SQLProperty {
        var names: [String] = []
        repeat {
            guard !isAtEnd else { throw failure("a property was expected at the end") }
            switch tokens[position] {
            case .word(let word) where !names.isEmpty || !Self.reserved.contains(word.uppercased()): names.append(word)
            case .name(let name): names.append(name)
            default: throw failure("a property was expected in place of \(here)")
            }
            position += 1
        } while take(sign: ".")
        switch names[0].lowercased() {
        case "sys" where names.count > 1:
            let name = names.dropFirst().joined(separator: ".").lowercased()
            guard SQLProperty.systemNames[name] != nil else {
                throw failure("a message has no property 'sys.\(names.dropFirst().joined(separator: "."))'")
            }
            return SQLProperty(isSystem: true, name: name)
        case "user" where names.count > 1:
            return SQLProperty(isSystem: false, name: names.dropFirst().joined(separator: "."))
        default: return SQLProperty(isSystem: false, name: names.joined(separator: "."))
        }
    }

    // MARK: Actions

    /// `SET property = value` and `REMOVE property`, with commas or semicolons between them or without.
    mutating func statements() throws(SQLFilter.SyntaxError) -> [SQLAction.Statement] {
        var found: [SQLAction.Statement] = []
        while true {
            while take(sign: ";") || take(sign: ",") {}
            if isAtEnd { break }
            guard found.count < SQLAction.statementLimit else {
                throw failure("the action has more than \(SQLAction.statementLimit) statements")
            }
            if take(word: "SET") {
                let name = try settable()
                try need("=")
                found.append(SQLAction.Statement(property: name, value: try sum(0)))
            } else if take(word: "REMOVE") {
                found.append(SQLAction.Statement(property: try settable(), value: nil))
            } else {
                throw failure("SET or REMOVE was expected in place of \(here)")
            }
        }
        guard !found.isEmpty else { throw failure("the action has no statement") }
        return found
    }

    private mutating func settable() throws(SQLFilter.SyntaxError) -> SQLProperty {
        let name = try property()
        guard !name.isSystem || SQLProperty.systemNames[name.name] == true else {
            throw failure("'sys.\(name.name)' cannot be changed")
        }
        return name
    }
}
