/// Configuration files and what is wrong with them, with file, line and column.
public import Diagnostics
internal import EventLoops
internal import Glibc
public import JSONText

/// Something wrong in a configuration file. Warnings do not keep anything from running.
public struct ConfigurationProblem: HostError {
    public let code: String
    public let message: String
    public let remedy: String?
    public let place: SourcePlace?
    public let isWarning: Bool

    public var fault: Fault { .user }

    public init(
        _ code: String, _ message: String, remedy: String? = nil, place: SourcePlace? = nil, isWarning: Bool = false
    ) {
        self.code = code
        self.message = message
        self.remedy = remedy
        self.place = place
        self.isWarning = isWarning
    }

    /// As a terminal shows it; a warning says so.
    public var text: String {
        isWarning ? "warning" + description.dropFirst("error".count) : description
    }
}

/// A JSON file, comments allowed, whose values can be pointed at.
public struct ConfigurationFile: Sendable {
    /// The file as the user would name it, relative to the app.
    public let displayName: String
    public let bytes: [UInt8]
    public let root: JSONValue

    /// Largest configuration file read, in bytes.
    public static let byteLimit = 4 << 20

    /// Parses text that has been read already.
    ///
    /// - Parameter allowsTrailingCommas: takes a comma behind the last element, for files whose own reader does.
    public init(
        displayName: String, bytes: [UInt8], allowsTrailingCommas: Bool = false
    ) throws(ConfigurationProblem) {
        self.displayName = displayName
        self.bytes = bytes
        guard bytes.count <= Self.byteLimit else {
            throw ConfigurationProblem(
                "AN2002", "the file has \(bytes.count) bytes; the limit is \(Self.byteLimit)",
                place: SourcePlace(file: displayName))
        }
        do {
            root = try JSONParser.parse(bytes, allowsComments: true, allowsTrailingCommas: allowsTrailingCommas)
        } catch {
            throw ConfigurationProblem(
                "AN2002", error.reason, remedy: "correct the JSON at this place; comments are allowed",
                place: SourcePlace(file: displayName, text: bytes, offset: error.offset))
        }
        guard root.members != nil else {
            throw ConfigurationProblem(
                "AN2003", "the file must hold a JSON object and holds \(root.kindName)",
                place: SourcePlace(file: displayName, text: bytes, offset: root.offset))
        }
    }

    /// Reads and parses a file.
    public init(
        path: String, displayName: String, allowsTrailingCommas: Bool = false
    ) throws(ConfigurationProblem) {
        guard let bytes = readFile(path, limit: Self.byteLimit + 1) else {
            throw ConfigurationProblem(
                "AN2001", "the file cannot be read: \(String(cString: strerror(errno)))",
                place: SourcePlace(file: displayName))
        }
        try self.init(displayName: displayName, bytes: bytes, allowsTrailingCommas: allowsTrailingCommas)
    }

    /// Where a value stands.
    public func place(of value: JSONValue) -> SourcePlace { place(at: value.offset) }

    /// The place of a byte offset; values that came from the environment have none.
    public func place(at offset: Int) -> SourcePlace {
        offset < 0 ? SourcePlace(file: displayName) : SourcePlace(file: displayName, text: bytes, offset: offset)
    }
}
