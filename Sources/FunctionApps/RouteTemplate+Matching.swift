/// Matching a request's path against a template.

extension RouteTemplate {
    /// The parameters' values when `path` matches; nil when it does not.
    ///
    /// - Parameter path: decoded segments, none of them empty. Absent optional parameters give nil values.
    public func match(_ path: [String]) -> [(name: String, value: String?)]? {
        var values: [(name: String, value: String?)] = []
        var index = 0
        for segment in segments {
            if segment.count == 1, case .parameter(let parameter) = segment[0] {
                if parameter.isCatchAll {
                    let rest = path[min(index, path.count)...].joined(separator: "/")
                    return accept(parameter, rest.isEmpty ? nil : rest, into: values)
                }
                let value = index < path.count ? path[index] : nil
                guard let extended = accept(parameter, value, into: values) else { return nil }
                values = extended
            } else {
                guard index < path.count, let extended = matchParts(segment, path[index], into: values) else {
                    return nil
                }
                values = extended
            }
            index += 1
        }
        return index >= path.count ? values : nil
    }

    private func accept(
        _ parameter: Parameter, _ value: String?, into values: [(name: String, value: String?)]
    ) -> [(name: String, value: String?)]? {
        guard let value = value ?? parameter.defaultValue else {
            let mayBeAbsent = parameter.isOptional || parameter.isCatchAll
            return mayBeAbsent ? values + [(parameter.name, nil)] : nil
        }
        guard parameter.constraints.allSatisfy({ $0.accepts(value) }) else { return nil }
        return values + [(parameter.name, value)]
    }

    /// A segment of several parts, read from its end so that the last separator wins.
    private func matchParts(
        _ parts: [Part], _ text: String, into values: [(name: String, value: String?)]
    ) -> [(name: String, value: String?)]? {
        if case .parameter(let last)? = parts.last, last.isOptional {
            if let full = matchFromEnd(parts, text) { return assign(full, into: values) }
            // Without the optional part its separating dot goes too.
            var shorter = Array(parts.dropLast())
            if case .literal(let literal)? = shorter.popLast(), literal.count > 1 {
                shorter.append(.literal(String(literal.dropLast())))
            }
            guard let found = matchFromEnd(shorter, text) else { return nil }
            return assign(found, into: values).map { $0 + [(last.name, nil)] }
        }
        return matchFromEnd(parts, text).flatMap { assign($0, into: values) }
    }

    private func assign(
        _ found: [(Parameter, String)], into values: [(name: String, value: String?)]
    ) -> [(name: String, value: String?)]? {
        found.reduce(Optional(values)) { result, pair in result.flatMap { accept(pair.0, pair.1, into: $0) } }
    }

    private func matchFromEnd(_ parts: [Part], _ text: String) -> [(Parameter, String)]? {
        var end = text.endIndex
        var found: [(Parameter, String)] = []
        var waiting: Parameter?
        for part in parts.reversed() {
            switch part {
            case .parameter(let parameter): waiting = parameter
            case .literal(let literal):
                guard let range = lastRange(of: literal, in: text[..<end], mustEnd: waiting == nil) else { return nil }
                if let parameter = waiting {
                    guard range.upperBound < end else { return nil }
                    found.insert((parameter, String(text[range.upperBound..<end])), at: 0)
                    waiting = nil
                }
                end = range.lowerBound
            }
        }
        if let parameter = waiting {
            guard end > text.startIndex else { return nil }
            found.insert((parameter, String(text[..<end])), at: 0)
            return found
        }
        return end == text.startIndex ? found : nil
    }

    private func lastRange(of literal: String, in text: Substring, mustEnd: Bool) -> Range<String.Index>? {
        guard let limit = text.index(text.endIndex, offsetBy: -literal.count, limitedBy: text.startIndex) else {
            return nil
        }
        var start = limit
        while true {
            let end = text.index(start, offsetBy: literal.count)
            // A parameter behind the literal must not be empty.
            let leavesRoom = mustEnd || end < text.endIndex
            if leavesRoom, text[start..<end].lowercased() == literal { return start..<end }
            guard !mustEnd, start > text.startIndex else { return nil }
            start = text.index(before: start)
        }
    }
}
