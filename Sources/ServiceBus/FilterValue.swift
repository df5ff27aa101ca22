/// Values that conditions and actions of rules compute with.

/// A value of a message's property or of a literal.
public enum FilterValue: Equatable, Sendable {
    case text(String)
    case integer(Int64)
    case number(Double)
    case truth(Bool)
    /// Milliseconds since 1970, UTC.
    case time(Int64)
    /// Milliseconds.
    case span(Int64)
    /// Sixteen bytes in network order.
    case uuid(UInt64, UInt64)
    /// A value that is there and that nothing here compares with, such as bytes.
    case other
    /// No value: comparisons with it are neither true nor false.
    case unknown

    /// Whether two values are the same; whole numbers and fractions are of one kind.
    func equals(_ other: FilterValue) -> Bool {
        switch (self, other) {
        case (.integer(let left), .number(let right)): Double(left) == right
        case (.number(let left), .integer(let right)): left == Double(right)
        case (.other, .other): false
        default: self == other
        }
    }

    /// Negative, zero or positive as it is less, equal or more; nil when the two have no order.
    func compared(to other: FilterValue) -> Int? {
        let sign = { (isLess: Bool, isMore: Bool) in isLess ? -1 : isMore ? 1 : 0 }
        switch (self, other) {
        case (.text(let left), .text(let right)): return sign(left < right, left > right)
        case (.integer(let left), .integer(let right)), (.time(let left), .time(let right)),
            (.span(let left), .span(let right)):
            return sign(left < right, left > right)
        default:
            guard let left = double, let right = other.double, !left.isNaN, !right.isNaN else { return nil }
            return sign(left < right, left > right)
        }
    }

    private var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    /// The value as text, for joining texts.
    private var asText: String? {
        switch self {
        case .text(let text): text
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .truth(let value): value ? "True" : "False"
        default: nil
        }
    }

    /// The result of an arithmetic operator, in the promotions of C#; `.unknown` for what has none.
    static func arithmetic(_ sign: Character, _ left: FilterValue, _ right: FilterValue) -> FilterValue {
        if sign == "+" {
            if case .text = left, let other = right.asText { return .text((left.asText ?? "") + other) }
            if case .text = right, let other = left.asText { return .text(other + (right.asText ?? "")) }
        }
        if case .integer(let a) = left, case .integer(let b) = right {
            switch sign {
            case "+": return .integer(a &+ b)
            case "-": return .integer(a &- b)
            case "*": return .integer(a &* b)
            case "/": return b == 0 || (a == .min && b == -1) ? .unknown : .integer(a / b)
            case "%": return b == 0 || (a == .min && b == -1) ? .unknown : .integer(a % b)
            default: return .unknown
            }
        }
        guard let a = left.double, let b = right.double else { return .unknown }
        switch sign {
        case "+": return .number(a + b)
        case "-": return .number(a - b)
        case "*": return .number(a * b)
        case "/": return .number(a / b)
        case "%": return .number(a.truncatingRemainder(dividingBy: b))
        default: return .unknown
        }
    }
}
