import FunctionApps
import Glibc
import Testing

/// One Swift file of the repository.
struct SourceFile {
    let path: String
    let text: String

    var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
    var name: String { String(path.split(separator: "/").last ?? "") }
    var module: String { String(path.split(separator: "/").dropFirst().first ?? "") }
    var imports: [String] {
        lines.compactMap { line in
            let words = line.split(separator: " ")
            guard let index = words.firstIndex(of: "import"), index <= 1, words.count > index + 1 else { return nil }
            return String(words[index + 1])
        }
    }
}

/// The rules of docs/architecture.md that a machine can hold; each is a pure function, tried on a planted violation.
enum Rules {
    /// The layer of each module; a module imports only from lower layers.
    static let layers: [String: Int] = [
        "CUV": 0, "CHiredis": 0, "CCurl": 0, "COpenSSL": 0, "CYAML": 0, "CZstd": 0, "CSQLite": 0, "CLinux": 0,
        "JSONText": 0,
        "HTTPMessages": 0,
        "Diagnostics": 1,
        "EventLoops": 2, "Invocations": 3, "HTTPServers": 3, "HTTPClients": 3, "RedisClients": 3, "DurableStores": 3,
        "ConfigurationFiles": 3,
        "FunctionApps": 4, "Bundles": 4, "Workers": 5, "StorageAccounts": 5, "StorageServers": 6, "Scoring": 6,
        "Triggers": 6, "Bindings": 6,
        "Hosting": 7,
        "andiron": 8,
        "CArchive": 0, "Images": 4, "Resources": 4, "AMQP": 0, "ServiceBus": 4,
    ]
    static let owners = [
        "CUV": "EventLoops", "COpenSSL": "EventLoops", "CHiredis": "RedisClients", "CCurl": "HTTPClients",
        "CYAML": "Bundles", "CZstd": "Scoring", "CSQLite": "DurableStores", "CLinux": "StorageAccounts",
        "CArchive": "Images",
    ]
    static let bannedWords = ["Manager", "Helper", "Util", "Impl", "Abstract", "Common", "Misc", "Extensions"]

    static func importsDownward(_ file: SourceFile) -> [String] {
        guard let mine = layers[file.module] else { return ["\(file.path): the module has no layer"] }
        return file.imports.compactMap { name in
            guard let theirs = layers[name], name != file.module, theirs >= mine else { return nil }
            return "\(file.path): \(file.module) (layer \(mine)) imports \(name) (layer \(theirs))"
        }
    }

    static func ownsItsC(_ file: SourceFile) -> [String] {
        file.imports.compactMap { name in
            guard let owner = owners[name], owner != file.module else { return nil }
            return "\(file.path): \(name) belongs to \(owner)"
        }
    }

    static func isShortEnough(_ file: SourceFile) -> [String] {
        file.lines.count > 500 ? ["\(file.path): \(file.lines.count) lines"] : []
    }

    static func isNamedWell(_ file: SourceFile) -> [String] {
        bannedWords.filter { file.name.contains($0) }.map { "\(file.path): '\($0)' in a file name" }
    }

    static func startsWithItsPurpose(_ file: SourceFile) -> [String] {
        file.text.hasPrefix("/// ") ? [] : ["\(file.path): the first line does not say what the file is for"]
    }

    static func hasNoLooseEnds(_ file: SourceFile) -> [String] {
        file.lines.enumerated().compactMap { number, line in
            let banned = ["TODO", "FIXME", "fatalError(", "try!"].first { line.contains($0) }
            return banned.map { "\(file.path):\(number + 1): \($0)" }
        }
    }

    /// A root task that is not started by `loopTask` is forty times dearer at each suspension.
    static func startsTasksOneWay(_ file: SourceFile) -> [String] {
        if file.path.hasSuffix("EventLoops/EventLoop.swift") { return [] }
        return file.lines.enumerated().compactMap { number, line in
            line.contains("Task {") && !line.contains("loopTask {") || line.contains("Task.detached")
                ? "\(file.path):\(number + 1): start tasks with loopTask" : nil
        }
    }

    /// What the compiler cannot check says why it holds.
    static func justifiesTheUnsafe(_ file: SourceFile) -> [String] {
        let lines = file.lines
        return lines.indices.compactMap { index in
            let line = lines[index]
            let isUnsafe = ["@unchecked Sendable", "nonisolated(unsafe)", "Unmanaged"].contains { line.contains($0) }
            guard isUnsafe, !line.hasPrefix("///") else { return nil }
            let near = lines[max(0, index - 4)...min(lines.count - 1, index + 1)]
            return near.contains { $0.contains("SAFETY:") } ? nil : "\(file.path):\(index + 1): no SAFETY: comment"
        }
    }

    static var all: [(SourceFile) -> [String]] {
        [
            importsDownward, ownsItsC, isShortEnough, isNamedWell, startsWithItsPurpose, hasNoLooseEnds,
            startsTasksOneWay,
            justifiesTheUnsafe,
        ]
    }
}

@Suite struct StyleTests {
    /// The repository's folder, found from this file.
    static let root = String(#filePath.dropLast("/Tests/StyleTests/StyleTests.swift".count))

    static func read(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while case let count = fread(&chunk, 1, chunk.count, file), count > 0 { bytes += chunk[..<count] }
        return String(decoding: bytes, as: UTF8.self)
    }

    static func files(below folder: String, ending: String) -> [String] {
        guard let stream = opendir(root + "/" + folder) else { return [] }
        defer { closedir(stream) }
        var found: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasPrefix(".") { continue }
            let path = folder + "/" + name
            if Int32(entry.pointee.d_type) == DT_DIR {
                found += files(below: path, ending: ending)
            } else if name.hasSuffix(ending) {
                found.append(path)
            }
        }
        return found
    }

    static let sources = files(below: "Sources", ending: ".swift").map {
        SourceFile(path: $0, text: read(root + "/" + $0))
    }

    @Test func `the sources keep the rules`() {
        #expect(Self.sources.count > 60)
        let violations = Rules.all.flatMap { rule in Self.sources.flatMap(rule) }
        #expect(violations.isEmpty, "\(violations.joined(separator: "\n"))")
    }

    @Test func `each rule catches a planted violation`() {
        let plant = { (path: String, text: String) in SourceFile(path: path, text: text) }
        #expect(!Rules.importsDownward(plant("Sources/EventLoops/X.swift", "public import Hosting")).isEmpty)
        #expect(Rules.importsDownward(plant("Sources/Hosting/X.swift", "internal import EventLoops")).isEmpty)
        #expect(!Rules.ownsItsC(plant("Sources/Hosting/X.swift", "internal import CUV")).isEmpty)
        #expect(!Rules.isShortEnough(plant("Sources/Hosting/X.swift", String(repeating: "\n", count: 501))).isEmpty)
        #expect(!Rules.isNamedWell(plant("Sources/Hosting/KeyManager.swift", "")).isEmpty)
        #expect(!Rules.startsWithItsPurpose(plant("Sources/Hosting/X.swift", "import A")).isEmpty)
        #expect(!Rules.hasNoLooseEnds(plant("Sources/Hosting/X.swift", "let a = try! b()")).isEmpty)
        #expect(!Rules.startsTasksOneWay(plant("Sources/Hosting/X.swift", "    Task { await x() }")).isEmpty)
        #expect(Rules.startsTasksOneWay(plant("Sources/Hosting/X.swift", "    loopTask { await x() }")).isEmpty)
        #expect(
            !Rules.justifiesTheUnsafe(plant("Sources/Hosting/X.swift", "final class A: @unchecked Sendable {")).isEmpty)
    }

    @Test func `every error code has a section in the reference, and none is there for nothing`() {
        let pattern = /"(AN\d{4})"/
        let bracketed = /error\[(AN\d{4})\]/
        let python = Self.read(Self.root + "/Sources/Workers/Python/andiron_worker.py")
        let texts = Self.sources.map(\.text) + [python]
        let used = Set(
            texts.flatMap { text in
                text.matches(of: pattern).map { String($0.1) } + text.matches(of: bracketed).map { String($0.1) }
            })
        let page = Self.read(Self.root + "/docs/reference/errors.md")
        let documented = Set(page.matches(of: /(?m)^## (AN\d{4})/.anchorsMatchLineEndings()).map { String($0.1) })
        #expect(used.subtracting(documented).sorted() == [])
        #expect(documented.subtracting(used).sorted() == [])
    }

    @Test func `every host.json key that is acted on is in the reference`() {
        let page = Self.read(Self.root + "/docs/reference/host-json.md")
        let missing = HostConfiguration.documentedKeys.filter { !page.contains("`\($0)`") }
        #expect(missing == [])
    }

    @Test func `every kind of record, setting and option is in the reference`() {
        let names = { (file: String, pattern: Regex<(Substring, Substring)>) in
            Set(Self.read(Self.root + "/Sources/" + file).matches(of: pattern).map { String($0.1) })
        }
        let events = Self.read(Self.root + "/docs/reference/events.md")
        let kinds = names("Diagnostics/HostEvent.swift", /case \w+ = "([a-z_]+)"/)
        #expect(kinds.count > 5)
        #expect(kinds.filter { !events.contains("`\($0)`") } == [])
        let page = Self.read(Self.root + "/docs/reference/app-settings.md")
        let settings = Set(
            Self.sources.filter { $0.module == "Hosting" }.flatMap { file in
                file.text.matches(of: /settings\["(\w+)"\]/).map { String($0.1) }
            })
        #expect(settings.count > 5)
        #expect(settings.filter { !page.contains("`\($0)`") } == [])
        let command = Self.read(Self.root + "/docs/reference/cli.md")
        let options = names(
            "andiron/Start.swift", /(?m)^    var ((?!location)\w+)(?:: \w+\??)? ?(?:=|\n)/.anchorsMatchLineEndings())
        let dashed = options.map { $0.replacing(/[A-Z]/) { "-" + $0.output.lowercased() } }
        #expect(dashed.count > 10)
        #expect(dashed.filter { !command.contains("--\($0)") } == [])
    }

    @Test func `every document has one title and its links lead somewhere`() {
        let documents = Self.files(below: "docs", ending: ".md") + ["README.md", "CHANGELOG.md"]
        #expect(documents.count > 10)
        for path in documents {
            let text = Self.read(Self.root + "/" + path)
            var inCode = false
            var titles = 0
            for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
                if line.hasPrefix("```") { inCode.toggle() }
                if !inCode, line.hasPrefix("# ") { titles += 1 }
            }
            #expect(titles == 1, "\(path)")
            let folder = path.split(separator: "/").dropLast().joined(separator: "/")
            for match in text.matches(of: /\]\(([^)#:\s]+)(?:#[^)]*)?\)/) {
                let target = Self.root + "/" + (folder.isEmpty ? "" : folder + "/") + match.1
                #expect(access(target, F_OK) == 0, "\(path) links to \(match.1)")
            }
        }
    }
}
