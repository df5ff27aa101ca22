/// Reads typed values out of a configuration file and collects what is wrong with them.
internal import Diagnostics
public import JSONText

/// A cursor-less reader: each call names a parent, a key and what it may hold.
public struct ConfigurationReader {
    public let file: ConfigurationFile
    public private(set) var problems: [ConfigurationProblem] = []

    public init(file: ConfigurationFile) { self.file = file }

    /// Adds a problem at a value.
    public mutating func report(
        _ code: String, _ message: String, at value: JSONValue?, remedy: String? = nil, isWarning: Bool = false
    ) {
        let place = value.map { file.place(of: $0) } ?? SourcePlace(file: file.displayName)
        problems.append(ConfigurationProblem(code, message, remedy: remedy, place: place, isWarning: isWarning))
    }

    /// The value of a key, in any case; null counts as absent.
    public func value(_ parent: JSONValue?, _ key: String) -> JSONValue? {
        let found = parent?.members?.last { $0.name.caseInsensitiveEquals(key) }?.value
        return found?.isNull == true ? nil : found
    }

    /// An object, whose keys are checked against those known.
    public mutating func section(_ parent: JSONValue?, _ key: String, known: [String]? = nil) -> JSONValue? {
        guard let found = value(parent, key) else { return nil }
        guard found.members != nil else {
            report("AN2003", "'\(key)' must be an object and is \(found.kindName)", at: found)
            return nil
        }
        if let known { checkKeys(of: found, known: known, in: key) }
        return found
    }

    /// Warns about keys that are not in `known`, naming the nearest.
    public mutating func checkKeys(of object: JSONValue, known: [String], in section: String) {
        for member in object.members ?? [] where !known.contains(where: { $0.caseInsensitiveEquals(member.name) }) {
            let meant = nearest(to: member.name, among: known)
            let place = file.place(at: object.offset < 0 ? -1 : member.nameOffset)
            problems.append(
                ConfigurationProblem(
                    "AN2004", "unknown property '\(member.name)'" + (section.isEmpty ? "" : " in '\(section)'"),
                    remedy: meant.map { "did you mean '\($0)'?" }, place: place, isWarning: true))
        }
    }

    /// A text.
    public mutating func text(_ parent: JSONValue?, _ key: String) -> String? {
        guard let found = value(parent, key) else { return nil }
        if let text = found.string { return text }
        report("AN2003", "'\(key)' must be a string and is \(found.kindName)", at: found)
        return nil
    }

    /// A whole number inside `range`; a number in quotes counts, as configuration is text.
    public mutating func integer(_ parent: JSONValue?, _ key: String, in range: ClosedRange<Int>) -> Int? {
        guard let found = value(parent, key) else { return nil }
        guard let number = found.integer ?? found.string.flatMap({ Int($0) }) else {
            report("AN2003", "'\(key)' must be a whole number and is \(describe(found))", at: found)
            return nil
        }
        guard range.contains(number) else {
            let upper = range.upperBound == .max ? "" : " and at most \(range.upperBound)"
            report("AN2003", "'\(key)' is \(number); it must be at least \(range.lowerBound)\(upper)", at: found)
            return nil
        }
        return number
    }

    /// A number inside `range`.
    public mutating func number(_ parent: JSONValue?, _ key: String, in range: ClosedRange<Double>) -> Double? {
        guard let found = value(parent, key) else { return nil }
        guard let number = found.double ?? found.string.flatMap({ Double($0) }), range.contains(number) else {
            report(
                "AN2003",
                "'\(key)' must be a number from \(range.lowerBound) to \(range.upperBound) and is \(describe(found))",
                at: found)
            return nil
        }
        return number
    }

    /// True or false; the words in quotes count.
    public mutating func flag(_ parent: JSONValue?, _ key: String) -> Bool? {
        guard let found = value(parent, key) else { return nil }
        if let truth = found.bool ?? found.string.flatMap({ Bool($0.lowercased()) }) { return truth }
        report("AN2003", "'\(key)' must be true or false and is \(describe(found))", at: found)
        return nil
    }

    /// A time span `[d.]hh:mm:ss[.fffffff]`.
    public mutating func duration(_ parent: JSONValue?, _ key: String, in range: ClosedRange<Duration>) -> Duration? {
        guard let found = value(parent, key) else { return nil }
        guard let text = found.string, let duration = parseTimeSpan(text) else {
            report(
                "AN2003", "'\(key)' must be a time span and is \(describe(found))", at: found,
                remedy: "write it as \"hh:mm:ss\", for example \"00:05:00\"")
            return nil
        }
        guard range.contains(duration) else {
            report(
                "AN2003", "'\(key)' is \(text); it must be from \(range.lowerBound) to \(range.upperBound)", at: found)
            return nil
        }
        return duration
    }

    /// A list of texts.
    public mutating func texts(_ parent: JSONValue?, _ key: String) -> [String]? {
        guard let found = value(parent, key) else { return nil }
        guard let elements = found.elements, !elements.contains(where: { $0.string == nil }) else {
            report("AN2003", "'\(key)' must be a list of strings and is \(describe(found))", at: found)
            return nil
        }
        return elements.compactMap(\.string)
    }

    private func describe(_ value: JSONValue) -> String {
        switch value.content {
        case .string(let text): "'\(text)'"
        case .number(let digits): digits
        case .bool(let truth): "\(truth)"
        default: value.kindName
        }
    }
}

/// A .NET time span: `[-][d.]hh:mm[:ss[.fffffff]]`; nil when it is none.
public func parseTimeSpan(_ text: String) -> Duration? {
    let isNegative = text.hasPrefix("-")
    let parts = text.dropFirst(isNegative ? 1 : 0).split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2 || parts.count == 3 else { return nil }
    let dayParts = parts[0].split(separator: ".", omittingEmptySubsequences: false)
    guard let days = dayParts.count == 2 ? Int(dayParts[0]) : 0, let hours = dayParts.last.flatMap({ Int($0) }),
        let minutes = Int(parts[1]), let seconds = parts.count == 3 ? Double(parts[2]) : 0,
        (0..<24).contains(hours), (0..<60).contains(minutes), seconds >= 0, seconds < 60, days >= 0
    else { return nil }
    let whole =
        Duration.seconds(days * 86400 + hours * 3600 + minutes * 60) + .milliseconds(Int((seconds * 1000).rounded()))
    return isNegative ? .zero - whole : whole
}

extension String {
    /// Equality without regard to ASCII case, as configuration keys are compared.
    public func caseInsensitiveEquals(_ other: String) -> Bool {
        utf8.count == other.utf8.count && lowercased() == other.lowercased()
    }
}
