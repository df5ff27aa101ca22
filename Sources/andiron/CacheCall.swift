/// A call of `/admin/cache` of a running host.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import HTTPClients
import JSONText

/// The options every `andiron cache` command has.
struct CacheCall: ParsableArguments {
    @OptionGroup var host: RunningHost

    @Option(help: "The master key, for a host that demands keys.")
    var key: String?

    @Flag(help: "Print the host's JSON answer.")
    var json = false

    /// `?name=value`, percent-encoded; nothing for nil.
    static func query(_ name: String, _ value: String?, _ mark: String) -> String {
        guard let value else { return "" }
        let digits = Array("0123456789ABCDEF")
        let encoded = value.utf8.map { byte in
            let isPlain = (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
            return isPlain || "-._~".utf8.contains(byte)
                ? String(UnicodeScalar(byte)) : "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
        }.joined()
        return "\(mark)\(name)=\(encoded)"
    }

    /// The bytes of an input: text, @file, or -; ends the process when a file cannot be read.
    func input(_ text: String) -> [UInt8] {
        if text == "-" { return readFile("/dev/stdin") ?? [] }
        guard text.hasPrefix("@") else { return Array(text.utf8) }
        if let bytes = readFile(absolutePath(String(text.dropFirst()), in: currentFolder())) { return bytes }
        complain("error[AN1005]: the data '\(text)' cannot be read: \(String(cString: strerror(errno)))")
        Glibc.exit(ExitStatus.missingFile.rawValue)
    }

    /// Calls, shows the answer by `show`, or as it is with `--json`, and ends the process.
    func perform(
        _ method: String, _ path: String, _ body: [UInt8] = [], _ show: @escaping @Sendable (JSONValue) -> ExitStatus
    ) {
        let call = self
        runLoop {
            guard let answer = await call.answer(method, path, body) else { return .failed }
            if call.json {
                output(answer.canonicalBytes + [0x0A])
                return .done
            }
            return show(answer)
        }
    }

    /// The host's answer; nil after saying why there is none.
    @EventLoop
    func answer(_ method: String, _ path: String, _ body: [UInt8]) async -> JSONValue? {
        guard let base = host.base() else {
            complain("error[AN1006]: the ready file does not exist; is the host running?")
            return nil
        }
        let headers = key.map { [(name: "x-functions-key", value: $0)] } ?? []
        do throws(HTTPClientError) {
            let response = try await HTTPClient().send(
                HTTPClientRequest(method: method, url: base + "/admin/cache" + path, headers: headers, body: body))
            let answer = try? JSONParser.parse(response.body)
            if response.status == 200, let answer { return answer }
            if response.status == 401 {
                complain(
                    "error[AN3004]: the host demands a key\n  try: --key KEY with the master key (.andiron/secrets/host.json)"
                )
                return nil
            }
            let error = answer?["error"]
            complain(
                "error[\(error?["code"]?.string ?? "AN1002")]: \(error?["message"]?.string ?? "the host answers \(response.status)")"
                    + (error?["try"]?.string.map { "\n  try: \($0)" } ?? ""))
        } catch {
            complain("\(error)")
        }
        return nil
    }
}
