/// `andiron wait`: returns when a host is ready.
import ArgumentParser
import Diagnostics
import EventLoops
import HTTPClients

struct Wait: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Wait until a host is ready, or one of its functions is.",
        discussion: """
            Examples:
              andiron wait --timeout 30
              andiron wait --for DigitsScore --ready-file ready.json
            """)

    @OptionGroup var host: RunningHost

    @Option(name: .customLong("for"), help: "ready, or the name of a function whose worker must be up.")
    var target: String = "ready"

    @Option(help: "Seconds to wait at most.")
    var timeout: Double = 30

    func run() throws {
        let (host, target, timeout) = (host, target, timeout)
        runLoop {
            let client = HTTPClient()
            let deadline = monotonicNanoseconds() + UInt64(max(0, timeout) * 1e9)
            var last = "the ready file is not there yet"
            repeat {
                if let base = host.base() {
                    do throws(HTTPClientError) {
                        let path = target == "ready" ? "/readyz" : "/readyz?verbose"
                        let response = try await client.send(HTTPClientRequest(url: base + path, timeout: .seconds(5)))
                        let text = String(decoding: response.body, as: UTF8.self)
                        if isMet(target, response.status, text) { return .done }
                        if target != "ready", response.status == 200, !text.contains("function \(target)") {
                            complain("error[AN2013]: there is no function '\(target)' on \(base)")
                            return .failed
                        }
                        last = text
                    } catch {
                        last = error.message
                    }
                }
                await sleep(for: .milliseconds(50))
            } while monotonicNanoseconds() < deadline
            complain("error[AN1004]: not ready after \(timeout) s; last seen: \(last)")
            return .timedOut
        }
    }
}

/// Whether the answer of `/readyz` says what is waited for.
private func isMet(_ target: String, _ status: Int, _ text: String) -> Bool {
    if target == "ready" { return status == 200 }
    return text.split(separator: "\n").contains {
        $0.hasPrefix("[+] function \(target)") && ($0.dropFirst("[+] function \(target)".count).first ?? ":") == ":"
    }
}
