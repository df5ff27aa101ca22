/// Errors a person can act on: a code, what happened where, and what to do.

/// Whose mistake an error is.
public enum Fault: String, Sendable {
    /// The user's files, request or code.
    case user
    /// Something the host depends on: a Redis, a registry, a disk.
    case service
    /// This program.
    case host
}

/// An error with everything a person needs. Each module has one type of them.
public protocol HostError: Error, Sendable, CustomStringConvertible {
    /// Stable, never reused, documented in `docs/reference/errors.md`: `AN` and four digits.
    var code: String { get }
    var fault: Fault { get }
    /// What happened, with the offending value; starts in lower case.
    var message: String { get }
    /// What to do about it, when there is something.
    var remedy: String? { get }
    /// Where in which file, when it is about a file.
    var place: SourcePlace? { get }
}

extension HostError {
    public var place: SourcePlace? { nil }

    /// The error as a terminal shows it: code and place, message, the offending line, the remedy.
    public var description: String {
        var text = "error[\(code)]"
        if let place { text += " \(place)" }
        text += ": \(message)"
        if let excerpt = place?.excerpt { text += "\n\(excerpt)" }
        if let remedy { text += "\n  try: \(remedy)" }
        return text
    }
}

/// A position in a text file.
public struct SourcePlace: Sendable, Equatable, CustomStringConvertible {
    /// The file, as the user would name it.
    public let file: String
    /// One-based line, or 0 for the whole file.
    public let line: Int
    /// One-based column in bytes.
    public let column: Int
    /// The offending line without its end.
    public let lineText: String

    /// The whole file.
    public init(file: String) {
        self.file = file
        line = 0
        column = 0
        lineText = ""
    }

    /// A place by line number, for readers that count lines themselves.
    public init(file: String, line: Int, column: Int = 1, lineText: String = "") {
        self.file = file
        self.line = line
        self.column = column
        self.lineText = lineText
    }

    /// The place of a byte offset.
    public init(file: String, text: [UInt8], offset: Int) {
        self.file = file
        let before = text.prefix(offset)
        line = before.count { $0 == 0x0A } + 1
        let lineStart = (before.lastIndex(of: 0x0A) ?? -1) + 1
        column = offset - lineStart + 1
        let rest = text[min(lineStart, text.count)...].prefix { $0 != 0x0A && $0 != 0x0D }
        lineText = String(decoding: rest, as: UTF8.self)
    }

    public var description: String { line == 0 ? file : "\(file):\(line):\(column)" }

    var excerpt: String? {
        guard line > 0, !lineText.isEmpty else { return nil }
        let number = "\(line)"
        let gutter = String(repeating: " ", count: number.count)
        let shown = lineText.replacingTabs
        let caret = String(repeating: " ", count: max(0, column - 1)) + "^"
        return "  \(number) | \(shown)\n  \(gutter) | \(caret)"
    }
}

extension String {
    fileprivate var replacingTabs: String { String(map { $0 == "\t" ? " " : $0 }) }
}
