/// `andiron invoke`: calls a function of a running host.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import HTTPClients
import JSONText

struct Invoke: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Call a function of a running host and print its answer.",
        discussion: """
            Examples:
              andiron invoke DigitsScore -d @samples/bundles/digits/sample-input.json
              echo '{"data":[[1,2]]}' | andiron invoke DiabetesScore -d -
            """)

    @Argument(help: "The function's name.")
    var function: String

    @OptionGroup var host: RunningHost

    @Option(name: [.short, .long], help: "The body: text, @file, or - for standard input.")
    var data: String?

    @Option(name: [.customShort("H"), .long], help: "A header, Name: value.")
    var header: [String] = []

    @Option(name: [.customShort("X"), .long], help: "The method (default: POST, or the function's first).")
    var method: String?

    @Option(help: "The function key, or the master key.")
    var key: String?

    @Option(help: "Seconds to wait for the answer.")
    var timeout: Double = 230

    @Flag(name: [.short, .long], help: "Show status and headers on standard error.")
    var include = false

    func run() throws {
        guard let body = body() else {
            complain("error[AN1005]: the data '\(data ?? "")' cannot be read: \(String(cString: strerror(errno)))")
            Glibc.exit(ExitStatus.missingFile.rawValue)
        }
        let command = self
        runLoop { await command.call(body) }
    }

    /// The bytes to send; nil when a file cannot be read.
    private func body() -> [UInt8]? {
        guard let data else { return [] }
        if data == "-" { return readFile("/dev/stdin") }
        if data.hasPrefix("@") { return readFile(absolutePath(String(data.dropFirst()), in: currentFolder())) }
        return Array(data.utf8)
    }

    @EventLoop
    private func call(_ body: [UInt8]) async -> ExitStatus {
        guard let base = host.base() else {
            complain("error[AN1006]: the ready file does not exist; is the host running?")
            return .unavailable
        }
        let client = HTTPClient()
        let keyHeader = key.map { [(name: "x-functions-key", value: $0)] } ?? []
        do throws(HTTPClientError) {
            let list = try await client.send(HTTPClientRequest(url: base + "/admin/functions", headers: keyHeader))
            if list.status == 401 {
                complain(
                    "error[AN3004]: the host demands a key\n  try: --key KEY with the master key (.andiron/secrets/host.json)"
                )
                return .refused
            }
            let functions = (try? JSONParser.parse(list.body))?.elements ?? []
            let found = functions.first { $0["name"]?.string?.caseInsensitiveEquals(function) == true }
            guard let url = found?["invoke_url_template"]?.string else {
                let names = functions.compactMap { $0["name"]?.string }
                let meant = nearest(to: function, among: names).map { "\n  try: did you mean '\($0)'?" } ?? ""
                complain("error[AN2013]: there is no HTTP function '\(function)' on \(base)\(meant)")
                return .failed
            }
            var headers = keyHeader
            for line in header {
                let parts = line.split(separator: ":", maxSplits: 1)
                guard parts.count == 2 else { continue }
                headers.append((String(parts[0]), String(parts[1].drop { $0 == " " })))
            }
            if !body.isEmpty, !headers.contains(where: { $0.name.lowercased() == "content-type" }) {
                headers.append(("Content-Type", "application/json"))
            }
            let response = try await client.send(
                HTTPClientRequest(
                    method: chosenMethod(found, hasBody: !body.isEmpty), url: base + pathOf(url), headers: headers,
                    body: body,
                    timeout: .milliseconds(Int(timeout * 1000))))
            if include {
                complain("HTTP \(response.status)")
                for header in response.headers { complain("\(header.name): \(header.value)") }
            }
            output(response.body + (response.body.last == 0x0A ? [] : [0x0A]))
            return response.status < 400 ? .done : response.status == 401 ? .refused : .failed
        } catch {
            complain("\(error)")
            return error.isRefused ? .unavailable : .timedOut
        }
    }

    private func chosenMethod(_ function: JSONValue?, hasBody: Bool) -> String {
        if let method { return method.uppercased() }
        let trigger = function?["config"]?["bindings"]?.elements?.first {
            $0["type"]?.string?.lowercased() == "httptrigger"
        }
        let methods = trigger?["methods"]?.elements?.compactMap { $0.string?.uppercased() } ?? []
        if methods.isEmpty || methods.contains("POST") { return hasBody || methods.contains("POST") ? "POST" : "GET" }
        return methods[0]
    }

    /// The path of a URL.
    private func pathOf(_ url: String) -> String {
        guard let scheme = url.firstRange(of: "://"), let slash = url[scheme.upperBound...].firstIndex(of: "/") else {
            return "/"
        }
        return String(url[slash...])
    }
}
