/// YAML read with libyaml into a small tree with line numbers: enough for conda files.
internal import CYAML

/// One node of a document.
indirect enum YAMLNode {
    case scalar(String, line: Int)
    case sequence([YAMLNode], line: Int)
    case mapping([(key: String, value: YAMLNode)], line: Int)

    var line: Int {
        switch self {
        case .scalar(_, let line), .sequence(_, let line), .mapping(_, let line): line
        }
    }

    /// The value of `key`, when this is a mapping that has it.
    subscript(key: String) -> YAMLNode? {
        if case .mapping(let pairs, _) = self { pairs.last { $0.key == key }?.value } else { nil }
    }
}

/// Why a text is not YAML that is understood here.
struct YAMLError: Error {
    let line: Int
    let reason: String
}

/// Reads one document; aliases and deep nesting are refused, so that a small file stays a small tree.
struct YAMLReader {
    static let depthLimit = 16
    static let nodeLimit = 10_000

    private var nodes = 0
    private let parser: UnsafeMutablePointer<yaml_parser_t>

    static func parse(_ bytes: [UInt8]) throws(YAMLError) -> YAMLNode? {
        let parser = UnsafeMutablePointer<yaml_parser_t>.allocate(capacity: 1)
        guard yaml_parser_initialize(parser) == 1 else { throw YAMLError(line: 0, reason: "libyaml has no memory") }
        // libyaml keeps the pointer while parsing, so the bytes are copied to memory of their own.
        let input = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: max(bytes.count, 1))
        _ = input.initialize(from: bytes)
        defer {
            yaml_parser_delete(parser)
            parser.deallocate()
            input.deallocate()
        }
        yaml_parser_set_input_string(parser, input.baseAddress, bytes.count)
        var reader = YAMLReader(parser: parser)
        while true {
            let event = try reader.next()
            switch event.kind {
            case YAML_STREAM_END_EVENT: return nil
            case YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT: continue
            case YAML_DOCUMENT_END_EVENT: return nil
            default: return try reader.node(event, depth: 0)
            }
        }
    }

    private init(parser: UnsafeMutablePointer<yaml_parser_t>) { self.parser = parser }

    private struct Event {
        let kind: yaml_event_type_t
        let text: String
        let line: Int
    }

    private mutating func next() throws(YAMLError) -> Event {
        nodes += 1
        guard nodes <= Self.nodeLimit else { throw YAMLError(line: 0, reason: "more than \(Self.nodeLimit) nodes") }
        var event = yaml_event_t()
        guard yaml_parser_parse(parser, &event) == 1 else {
            let problem = parser.pointee.problem.map { String(cString: $0) } ?? "not YAML"
            throw YAMLError(line: Int(parser.pointee.problem_mark.line) + 1, reason: problem)
        }
        defer { yaml_event_delete(&event) }
        var text = ""
        if event.type == YAML_SCALAR_EVENT {
            var length = 0
            if let value = andiron_scalar(&event, &length) {
                text = String(decoding: UnsafeBufferPointer(start: value, count: length), as: UTF8.self)
            }
        }
        return Event(kind: event.type, text: text, line: Int(event.start_mark.line) + 1)
    }

    private mutating func node(_ event: Event, depth: Int) throws(YAMLError) -> YAMLNode {
        guard depth < Self.depthLimit else { throw YAMLError(line: event.line, reason: "nested too deeply") }
        switch event.kind {
        case YAML_SCALAR_EVENT: return .scalar(event.text, line: event.line)
        case YAML_SEQUENCE_START_EVENT:
            var elements: [YAMLNode] = []
            while true {
                let element = try next()
                if element.kind == YAML_SEQUENCE_END_EVENT { return .sequence(elements, line: event.line) }
                elements.append(try node(element, depth: depth + 1))
            }
        case YAML_MAPPING_START_EVENT:
            var pairs: [(key: String, value: YAMLNode)] = []
            while true {
                let key = try next()
                if key.kind == YAML_MAPPING_END_EVENT { return .mapping(pairs, line: event.line) }
                guard key.kind == YAML_SCALAR_EVENT else {
                    throw YAMLError(line: key.line, reason: "a key that is not text")
                }
                pairs.append((key.text, try node(try next(), depth: depth + 1)))
            }
        default: throw YAMLError(line: event.line, reason: "an alias or anchor, which is not read here")
        }
    }
}
