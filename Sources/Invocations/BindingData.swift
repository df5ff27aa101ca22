/// What a trigger knows about its event, by name: the values of `{name}` in bindings.
public import JSONText

/// One value a binding expression can name.
public indirect enum BindingValue: Sendable {
    case text(String)
    case integer(Int)
    /// Seconds since 1970, UTC.
    case time(Double)
    case json(JSONValue)
    case object([(name: String, value: BindingValue)])

    /// A named part of an object, in any case.
    public subscript(name: String) -> BindingValue? {
        let key = name.lowercased()
        switch self {
        case .object(let members): return members.last { $0.name.lowercased() == key }?.value
        case .json(let value):
            return value.members?.last { $0.name.lowercased() == key }.map { .json($0.value) }
        default: return nil
        }
    }

    /// The value as text; objects, arrays and null are empty, as in the Functions host.
    public func text(format: String?) throws(BindingTemplateError) -> String {
        switch self {
        case .text(let text): return text
        case .integer(let number): return format.map { formatted(number, $0) } ?? "\(number)"
        case .time(let seconds): return try DateFormat(format ?? DateFormat.templateDefault).text(of: seconds)
        case .json(let value):
            switch value.content {
            case .string(let text): return text
            case .number(let digits):
                return format.flatMap { format in Int(digits).map { formatted($0, format) } } ?? digits
            case .bool(let truth): return truth ? "True" : "False"
            case .null, .array, .object: return ""
            }
        case .object: return ""
        }
    }

    /// As JSON; times are ISO 8601 texts.
    public func write(to writer: inout JSONWriter) {
        switch self {
        case .text(let text): writer.string(text)
        case .integer(let number): writer.integer(number)
        case .time: writer.string((try? text(format: Self.timeFormat)) ?? "")
        case .json(let json): writer.value(json)
        case .object(let members):
            writer.beginObject()
            for member in members {
                writer.name(member.name)
                member.value.write(to: &writer)
            }
            writer.endObject()
        }
    }

    /// As a program reads it, in the headers of an entry script: text as it is, times in ISO 8601, objects and arrays
    /// as JSON, null as nothing.
    public var plainText: String {
        switch self {
        case .text(let text): return text
        case .json(let json) where json.string != nil: return json.string ?? ""
        case .json(let json) where json.isNull: return ""
        case .time: return (try? text(format: Self.timeFormat)) ?? ""
        default:
            var writer = JSONWriter()
            write(to: &writer)
            return String(decoding: writer.bytes, as: UTF8.self)
        }
    }

    private static let timeFormat = "yyyy-MM-ddTHH:mm:ss.fffZ"

    /// `D5` pads with zeros, `X` is hexadecimal; other formats leave the number as it is.
    private func formatted(_ number: Int, _ format: String) -> String {
        guard let kind = format.first else { return "\(number)" }
        let isHexadecimal = kind == "X" || kind == "x"
        guard isHexadecimal || kind == "D" || kind == "d" || format.allSatisfy({ $0 == "0" }) else {
            return "\(number)"
        }
        let width = format.allSatisfy { $0 == "0" } ? format.count : Int(format.dropFirst()) ?? 0
        let digits = String(number.magnitude, radix: isHexadecimal ? 16 : 10, uppercase: kind == "X")
        let padding = String(repeating: "0", count: max(0, min(width, 64) - digits.count))
        return (number < 0 ? "-" : "") + padding + digits
    }
}

/// Names and values, looked up in any case; later values replace earlier ones of the same name.
public struct BindingData: Sendable {
    private var values: [(name: String, value: BindingValue)] = []

    public init() {}

    public var isEmpty: Bool { values.isEmpty }

    /// The names that have values.
    public var names: [String] { values.map(\.name) }

    public subscript(name: String) -> BindingValue? {
        let key = name.lowercased()
        return values.last { $0.name.lowercased() == key }?.value
    }

    public mutating func set(_ name: String, _ value: BindingValue) { values.append((name, value)) }

    public mutating func set(_ name: String, _ text: String) { set(name, .text(text)) }

    /// The top-level properties of a JSON object: scalars and objects, not arrays or null
    /// (the Functions host's Utility.ApplyBindingData).
    public mutating func set(properties payload: JSONValue) {
        for member in payload.members ?? [] where member.value.elements == nil && !member.value.isNull {
            set(member.name, .json(member.value))
        }
    }
}
