/// What a layer does besides bringing files; kept beside the unpacked layer.
internal import ConfigurationFiles
internal import JSONText

/// The parts of a layer that show only when it is put over others.
struct LayerRecord: Sendable, Equatable {
    /// Paths that hide what lower layers have there.
    var whiteouts: [String] = []
    /// Folders that hide all that lower layers have in them.
    var opaqueFolders: [String] = []
    /// Links and what they say.
    var links: [String: String] = [:]
    /// Folders that are there because something is in them; they do not replace a link.
    var impliedFolders: [String] = []
    /// Hard links to files of lower layers: path and target.
    var pendingHardLinks: [String: String] = [:]
    var entryCount = 0
    var byteCount = 0
    /// Devices, pipes and sockets, which are left out.
    var skipped = 0

    func encoded() -> [UInt8] {
        jsonObject { writer in
            writer.member("version", 1)
            writer.member("entries", entryCount)
            writer.member("bytes", byteCount)
            writer.member("skipped", skipped)
            for (name, list) in [
                ("whiteouts", whiteouts), ("opaque", opaqueFolders), ("implied", impliedFolders),
            ] {
                writer.name(name)
                writer.beginArray()
                for path in list { writer.string(path) }
                writer.endArray()
            }
            for (name, pairs) in [("links", links), ("hardLinks", pendingHardLinks)] {
                writer.name(name)
                writer.beginObject()
                for (path, target) in pairs.sorted(by: { $0.key < $1.key }) { writer.member(path, target) }
                writer.endObject()
            }
        }
    }

    init() {}

    /// Reads a record; nil when it is damaged.
    init?(path: String) {
        guard let bytes = readFile(path), let root = try? JSONParser.parse(bytes), root["version"]?.integer == 1 else {
            return nil
        }
        let list = { (name: String) in (root[name]?.elements ?? []).compactMap(\.string) }
        let pairs = { (name: String) in
            Dictionary((root[name]?.members ?? []).map { ($0.name, $0.value.string ?? "") }) { _, last in last }
        }
        whiteouts = list("whiteouts")
        opaqueFolders = list("opaque")
        impliedFolders = list("implied")
        links = pairs("links")
        pendingHardLinks = pairs("hardLinks")
        entryCount = root["entries"]?.integer ?? 0
        byteCount = root["bytes"]?.integer ?? 0
        skipped = root["skipped"]?.integer ?? 0
    }
}
