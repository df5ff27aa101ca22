/// The SQL-like conditions of subscription rules, in the grammar of Azure's "Subscription Rule SQL Filter Syntax".

/// The name of a message's property: the user's own, or one of the message itself (`sys.`).
struct SQLProperty: Equatable, Sendable {
    let isSystem: Bool
    let name: String

    /// What a message itself has, by Azure's names in lower case; the value tells whether an action may set it.
    static let systemNames: [String: Bool] = [
        "contenttype": true, "correlationid": true, "label": true, "subject": true, "messageid": true, "replyto": true,
        "replytosessionid": true, "sessionid": true, "to": true, "partitionkey": false, "deliverycount": false,
        "enqueuedsequencenumber": false, "enqueuedtimeutc": false, "expiresatutc": false, "lockeduntilutc": false,
        "locktoken": false, "scheduledenqueuetimeutc": false, "sequencenumber": false, "size": false, "state": false,
        "timetolive": false, "viapartitionkey": false, "transactionpartitionkey": false, "forcepersistence": false,
        "deadlettersource": false,
    ]
}

/// An expression of conditions and actions.
indirect enum SQLExpression: Sendable {
    case literal(FilterValue)
    case property(SQLProperty)
    /// `property(name)`: the name is a value itself.
    case namedProperty(SQLExpression)
    case newID
    case not(SQLExpression)
    case negative(SQLExpression)
    case binary(SQLOperator, SQLExpression, SQLExpression)
    case like(SQLExpression, pattern: SQLExpression, escape: SQLExpression?)
    case isIn(SQLExpression, [SQLExpression])
    case isNull(SQLExpression)
    case exists(SQLProperty)

    /// The value for a message whose properties `property` gives.
    func value(_ property: (SQLProperty) -> FilterValue) -> FilterValue {
        switch self {
        case .literal(let value): return value
        case .property(let name): return property(name)
        case .namedProperty(let name):
            guard case .text(let text) = name.value(property) else { return .unknown }
            return property(SQLProperty(isSystem: false, name: text))
        case .newID:
            // Version 4, variant 1 of RFC 9562.
            let high = UInt64.random(in: .min ... .max) & ~0xF000 | 0x4000
            return .uuid(high, UInt64.random(in: .min ... .max) & ~(0b11 << 62) | 0b10 << 62)
        case .exists(let name): return .truth(property(name) != .unknown)
        case .isNull(let inner): return .truth(inner.value(property) == .unknown)
        case .not(let inner):
            guard case .truth(let truth) = inner.value(property) else { return .unknown }
            return .truth(!truth)
        case .negative(let inner):
            switch inner.value(property) {
            case .integer(let value): return .integer(0 &- value)
            case .number(let value): return .number(-value)
            default: return .unknown
            }
        case .isIn(let inner, let list):
            let wanted = inner.value(property)
            if wanted == .unknown { return .unknown }
            return .truth(list.contains { $0.value(property).equals(wanted) })
        case .like(let inner, let pattern, let escape):
            guard case .text(let text) = inner.value(property), case .text(let pattern) = pattern.value(property) else {
                return .unknown
            }
            var sign: Character?
            if let escape {
                guard case .text(let text) = escape.value(property), text.count == 1 else { return .unknown }
                sign = text.first
            }
            return .truth(LikePattern(pattern, escape: sign).matches(text))
        case .binary(let sign, let left, let right): return sign.apply(left.value(property), right.value(property))
        }
    }
}

/// Operators of two sides.
enum SQLOperator: Sendable, Equatable {
    case and, or, equal, unequal, less, lessOrEqual, greater, greaterOrEqual
    case arithmetic(Character)

    func apply(_ left: FilterValue, _ right: FilterValue) -> FilterValue {
        switch (self, left, right) {
        case (.and, .truth(false), _), (.and, _, .truth(false)): return .truth(false)
        case (.and, .truth(true), .truth(true)): return .truth(true)
        case (.or, .truth(true), _), (.or, _, .truth(true)): return .truth(true)
        case (.or, .truth(false), .truth(false)): return .truth(false)
        case (_, .unknown, _), (_, _, .unknown), (.and, _, _), (.or, _, _): return .unknown
        case (.equal, _, _): return .truth(left.equals(right))
        case (.unequal, _, _): return .truth(!left.equals(right))
        case (.arithmetic(let sign), _, _): return .arithmetic(sign, left, right)
        default: break
        }
        guard let order = left.compared(to: right) else { return .unknown }
        switch self {
        case .less: return .truth(order < 0)
        case .lessOrEqual: return .truth(order <= 0)
        case .greater: return .truth(order > 0)
        default: return .truth(order >= 0)
        }
    }
}

/// A pattern of `LIKE`: `%` is any characters, `_` one.
struct LikePattern {
    private var signs: [(character: Character, isLiteral: Bool)] = []

    init(_ pattern: String, escape: Character?) {
        var rest = pattern[...]
        while let next = rest.popFirst() {
            if next == escape, let literal = rest.popFirst() {
                signs.append((literal, true))
            } else {
                signs.append((next, next != "%" && next != "_"))
            }
        }
    }

    /// Goes back to the last `%` only, so it takes no exponential time.
    func matches(_ text: String) -> Bool {
        let characters = Array(text)
        var (at, sign, mark, star) = (0, 0, 0, -1)
        while at < characters.count {
            if sign < signs.count, !signs[sign].isLiteral, signs[sign].character == "%" {
                (star, mark) = (sign, at)
                sign += 1
            } else if sign < signs.count, !signs[sign].isLiteral || signs[sign].character == characters[at] {
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

/// A parsed condition.
struct SQLFilter: Sendable {
    private let root: SQLExpression

    /// Characters of a condition or an action, and how deep it may nest.
    static let characterLimit = 1024
    static let depthLimit = 32

    /// Why a text is no condition.
    struct SyntaxError: Error, Equatable {
        let reason: String
    }

    /// - Parameter parameters: values of `@name` in the text, by name with the sign.
    init(_ text: String, parameters: [String: FilterValue] = [:]) throws(SyntaxError) {
        var parser = try SQLParser(text, parameters)
        root = try parser.expression(depth: 0)
        guard parser.isAtEnd else { throw SyntaxError(reason: "\(parser.here) was not expected") }
    }

    /// Whether a message meets the condition; `property` gives its values by name.
    func matches(_ property: (SQLProperty) -> FilterValue) -> Bool { root.value(property) == .truth(true) }
}

/// A parsed action: what a rule changes on the messages it lets through.
struct SQLAction: Sendable {
    /// One statement; a value of nil removes.
    struct Statement: Sendable {
        let property: SQLProperty
        let value: SQLExpression?
    }

    let statements: [Statement]

    /// Statements of one action.
    static let statementLimit = 32

    init(_ text: String, parameters: [String: FilterValue] = [:]) throws(SQLFilter.SyntaxError) {
        var parser = try SQLParser(text, parameters)
        statements = try parser.statements()
    }
}
