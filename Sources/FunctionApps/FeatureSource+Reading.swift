/// Reads the `features` section of function.json.
internal import ConfigurationFiles
internal import Invocations
internal import JSONText

extension FeatureSource {
    static let keys = ["key", "prefix", "format", "fields", "input", "shape", "missing", "timeout"]

    static func read(_ root: JSONValue, _ reader: inout ConfigurationReader) -> FeatureSource? {
        guard let section = reader.section(root, "features", known: keys) else { return nil }
        var source = FeatureSource()
        source.member = reader.text(section, "key") ?? source.member
        source.prefix = reader.text(section, "prefix") ?? source.prefix
        source.input = reader.text(section, "input") ?? source.input
        source.fields = reader.texts(section, "fields")
        source.timeout = reader.duration(section, "timeout", in: .milliseconds(1) ... .seconds(60)) ?? source.timeout
        if let word = word(section, "format", Format.allCases.map(\.rawValue), &reader) {
            source.format = Format(rawValue: word) ?? source.format
        }
        if let word = word(section, "missing", Missing.allCases.map(\.rawValue), &reader) {
            source.missing = Missing(rawValue: word) ?? source.missing
        }
        if let word = word(section, "shape", ["batch", "single"], &reader) { source.isBatch = word == "batch" }
        if source.fields != nil, source.format != .hash {
            reader.report(
                "AN2003", "'fields' belongs to the format 'hash'", at: reader.value(section, "fields"),
                remedy: "\"format\": \"hash\"")
        }
        return source
    }

    private static func word(
        _ section: JSONValue, _ key: String, _ known: [String], _ reader: inout ConfigurationReader
    ) -> String? {
        guard let word = reader.text(section, key) else { return nil }
        if known.contains(word) { return word }
        reader.report(
            "AN2003", "'\(key)' is '\(word)'", at: reader.value(section, key),
            remedy: "one of \(known.joined(separator: ", "))")
        return nil
    }
}
