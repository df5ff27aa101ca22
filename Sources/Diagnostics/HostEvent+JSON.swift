/// Records as NDJSON lines.
internal import JSONText

extension HostEvent {
    /// Appends the record as one JSON line. `timestamp` is RFC 3339 in UTC with milliseconds.
    public func appendJSONLine(timestamp: String, to bytes: inout [UInt8]) {
        var writer = JSONWriter(bytes)
        bytes = []
        writer.beginObject()
        writer.member("schema_version", Self.schemaVersion)
        writer.member("kind", kind.rawValue)
        writer.member("timestamp", timestamp)
        writer.member("level", level.name)
        switch content {
        case .invocationCompleted(let record): record.write(into: &writer)
        case .record(let message, let fields):
            writer.member("message", message)
            for (name, value) in fields {
                writer.name(name)
                switch value {
                case .text(let text): writer.string(text)
                case .integer(let number): writer.integer(number)
                case .number(let number): writer.number(number)
                case .flag(let truth): writer.bool(truth)
                case .json(let json): writer.raw(json)
                }
            }
        }
        writer.endObject()
        bytes = writer.bytes
        bytes.append(0x0A)
    }
}

extension InvocationRecord {
    func write(into writer: inout JSONWriter) {
        writer.member("invocation_id", "\(id)")
        writer.member("function", functionName)
        writer.member("trigger", trigger)
        writer.member("outcome", succeeded ? "succeeded" : "failed")
        if let source { writer.member("source", source) }
        if let parent { writer.member("parent_invocation_id", parent) }
        if attempt > 1 { writer.member("attempt", attempt) }
        if status > 0 { writer.member("status", status) }
        if let cache { writer.member("cache", cache.rawValue) }
        writer.member("input_bytes", inputByteCount)
        writer.member("output_bytes", outputByteCount)
        writer.name("duration_ms")
        writer.number(Double(stages.total) / 1e6)
        writer.name("stages_ms")
        writer.beginObject()
        for stage in Stage.allCases {
            writer.name(stage.name)
            writer.number(Double(stages[stage]) / 1e6)
        }
        writer.endObject()
        if let failure { writer.member("error", failure) }
    }
}
