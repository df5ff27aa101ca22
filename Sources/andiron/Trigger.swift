/// `andiron trigger`: has a function of a running host process an event now.
import ArgumentParser
import ConfigurationFiles
import EventLoops
import Glibc
import HTTPClients
import JSONText
import StorageAccounts

struct Trigger: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Have a function of the running host process an event now.",
        subcommands: [TriggerBlob.self, TriggerQueue.self])
}

/// `andiron trigger blob`.
struct TriggerBlob: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "blob", abstract: "Run a blob-triggered function for a blob, whatever its receipts say.",
        discussion: """
            Examples:
              andiron trigger blob DigitsFromFolder incoming/7.json
            """)

    @Argument(help: "The function's name.")
    var function: String

    @Argument(help: "container/name, or the file in the storage folder.")
    var path: String

    @OptionGroup var location: StorageLocation

    func run() throws {
        let address = try location.address(path)
        let command = self
        runLoop { await command.trigger(address) }
    }

    @EventLoop
    private func trigger(_ address: BlobAddress) async -> ExitStatus {
        let body = jsonObject { writer in
            writer.member("function", function)
            writer.member("blob", "\(address)")
        }
        do throws(HTTPClientError) {
            guard let response = try await location.ask("POST", "trigger", body) else {
                complain("error[AN1006]: no host has \(location.root()) open\n  try: andiron start")
                return .unavailable
            }
            guard response.status == 200 else {
                complain(location.describe(response))
                return response.status == 401 ? .refused : .failed
            }
            output(response.body + (response.body.last == 0x0A ? [] : [0x0A]))
            return .done
        } catch {
            complain("\(error)")
            return .unavailable
        }
    }
}
