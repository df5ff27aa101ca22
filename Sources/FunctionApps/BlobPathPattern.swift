/// Paths of blob triggers: a container, and a pattern that captures parts of blob names.
///
/// Grammar and messages are those of the Functions storage extension (BlobPathSource); each `{name}` takes as much as
/// it can, so the last separator wins.
public import Invocations

/// A trigger's `path`, read once and matched against every blob.
public struct BlobPathPattern: Sendable, Equatable {
    /// As written, settings replaced.
    public let text: String
    public let container: String
    private let parts: [BindingTemplate.Part]?
    /// The names that a match captures.
    public let captureNames: [String]

    /// Reads `container` or `container/pattern`.
    public init(_ text: String) throws(BindingTemplateError) {
        self.text = text
        let malformed = BindingTemplateError(
            "Invalid blob trigger path '\(text)'. Paths must be in the format 'container/blob'.")
        guard !text.isEmpty, !text.contains("\\") else { throw malformed }
        let halves = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        container = String(halves[0])
        if container.contains("{") || container.contains("}") {
            throw BindingTemplateError(
                "Invalid blob trigger path '\(text)'. Container paths cannot contain {resolve} tokens.")
        }
        guard !container.isEmpty, halves.count == 1 || !halves[1].isEmpty else { throw malformed }
        guard isContainerName(container.lowercased()) else {
            throw BindingTemplateError("Invalid container name: \(container)")
        }
        guard halves.count == 2 else {
            parts = nil
            captureNames = []
            return
        }
        let template = try BindingTemplate(String(halves[1]))
        var names: [String] = []
        for part in template.parts {
            guard case .expression(let path, let format) = part else { continue }
            guard path.count == 1, format == nil, isCaptureName(path[0]) else {
                throw BindingTemplateError(
                    "Invalid template '\(halves[1])'. The parameter name '\(path.joined(separator: "."))' is invalid.")
            }
            names.append(path[0])
        }
        parts = template.parts
        captureNames = names
    }

    /// The captured values when a blob matches, else nil. A path without `{}` is compared exactly.
    public func match(container: String, name: String) -> [(name: String, value: String)]? {
        if captureNames.isEmpty {
            guard container == self.container else { return nil }
        } else if container.lowercased() != self.container.lowercased() {
            return nil
        }
        guard let parts else { return [] }
        let bytes = Array(name.utf8)
        return match(parts, bytes)
    }

    /// Literals are found from the right, each as late as it can be: that gives earlier captures the most, in time
    /// proportional to the name, whatever the pattern.
    private func match(_ parts: [BindingTemplate.Part], _ bytes: [UInt8]) -> [(name: String, value: String)]? {
        var captures: [(name: String, value: String)] = []
        var end = bytes.count
        var open: (name: String, end: Int)?
        for (index, part) in parts.enumerated().reversed() {
            switch part {
            case .expression(let names, _):
                // Two captures side by side: the first takes all, the second nothing.
                if let pending = open { captures.append((pending.name, "")) }
                open = (names[0], open?.end ?? end)
            case .literal(let text):
                let literal = Array(text.utf8)
                if let pending = open {
                    let found = index == 0 ? 0 : Self.lastIndex(of: literal, in: bytes, before: pending.end)
                    guard let start = found, start + literal.count <= pending.end,
                        bytes[start...].starts(with: literal)
                    else { return nil }
                    captures.append(
                        (pending.name, String(decoding: bytes[(start + literal.count)..<pending.end], as: UTF8.self)))
                    open = nil
                    end = start
                } else {
                    guard end >= literal.count, bytes[(end - literal.count)..<end].elementsEqual(literal) else {
                        return nil
                    }
                    end -= literal.count
                }
            }
        }
        if let pending = open {
            captures.append((pending.name, String(decoding: bytes[..<pending.end], as: UTF8.self)))
            end = 0
        }
        return end == 0 ? captures.reversed() : nil
    }

    private static func lastIndex(of literal: [UInt8], in bytes: [UInt8], before end: Int) -> Int? {
        var start = end - literal.count
        while start >= 0 {
            if bytes[start] == literal[0], bytes[start..<(start + literal.count)].elementsEqual(literal) {
                return start
            }
            start -= 1
        }
        return nil
    }
}

private func isCaptureName(_ name: String) -> Bool {
    name.unicodeScalars.allSatisfy { $0.properties.isAlphabetic || $0.properties.numericType == .decimal || $0 == "_" }
}

/// Whether a name is one of a container: 3 to 63 lower-case letters, digits and single hyphens, or a reserved one.
public func isContainerName(_ name: String) -> Bool {
    if name == "$root" || name == "$web" || name == "$logs" { return true }
    return isStorageName(name)
}

/// Whether a name is one of a queue: the rule of containers, without the reserved names.
public func isStorageName(_ name: String) -> Bool {
    let bytes = Array(name.utf8)
    guard (3...63).contains(bytes.count), bytes.first != 0x2D, bytes.last != 0x2D else { return false }
    return bytes.indices.allSatisfy { index in
        let byte = bytes[index]
        if byte == 0x2D { return bytes[index + 1] != 0x2D }
        return (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte)
    }
}

/// Whether a name is one of a blob: 1 to 1024 characters, no backslash, no control character but line ends and tabs,
/// not ending in `.` or `/`, no empty, `.` or `..` segment (which have no place in a folder).
public func isBlobName(_ name: String) -> Bool {
    guard !name.isEmpty, name.utf16.count <= 1024, !name.contains("\\"), !name.hasSuffix("."), !name.hasSuffix("/"),
        !name.utf8.contains(0)
    else { return false }
    return name.split(separator: "/", omittingEmptySubsequences: false).allSatisfy {
        !$0.isEmpty && $0 != "." && $0 != ".." && $0.utf8.count <= 255
    }
}
