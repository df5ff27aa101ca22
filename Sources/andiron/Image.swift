/// `andiron image`: images in the store, and between it and registries.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import HTTPClients
import Hosting
import Images
import JSONText

struct Image: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Pull images.", subcommands: [ImagePull.self])
}

/// Where a registry is and who we are there; options of several commands.
struct RegistryOptions: ParsableArguments {
    @Option(help: "The user name at the registry (default: DOCKER_REGISTRY_SERVER_USERNAME, then DOCKER_CONFIG).")
    var username: String?

    @Option(help: "The password (default: DOCKER_REGISTRY_SERVER_PASSWORD).")
    var password: String?

    @Option(help: "The registry's address, http:// or https:// (default: DOCKER_REGISTRY_SERVER_URL).")
    var registryServer: String?

    @Option(help: "Seconds for the whole exchange.")
    var timeout: Double = 1800

    func access(for host: String) -> RegistryAccess {
        let environment = processEnvironment()
        let password = password ?? environment["DOCKER_REGISTRY_SERVER_PASSWORD"]
        return .choose(
            for: host, serverURL: registryServer ?? environment["DOCKER_REGISTRY_SERVER_URL"],
            username: username ?? environment["DOCKER_REGISTRY_SERVER_USERNAME"],
            passwords: password.map { [$0] } ?? [], environment: environment)
    }

    @EventLoop
    func client(for host: String, log: EventLog) -> RegistryClient {
        RegistryClient(
            host: host, access: access(for: host), http: HTTPClient(), log: log,
            deadline: monotonicNanoseconds() + UInt64(max(0, timeout) * 1e9))
    }
}

struct ImagePull: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Pull an image into the store: download, verify, unpack.",
        discussion: """
            Prints the digest and the folder with its files.

            Examples:
              andiron image pull myregistry.azurecr.io/package:20190827195524
            """)

    @Argument(help: "The image.")
    var image: String

    @OptionGroup var registry: RegistryOptions

    @Flag(help: "Leave out layers that say they are a base.")
    var skipBase = false

    func run() throws {
        let command = self
        runLoop { await command.pull() }
    }

    @EventLoop
    private func pull() async -> ExitStatus {
        do throws(ImageError) {
            let reference = try ImageReference(image)
            let store = ContentStore(cacheFolder: AppLocation.cacheFolder())
            let display = PullDisplay(isTerminal: isatty(2) == 1)
            let puller = ImagePuller(
                store: store, client: registry.client(for: reference.registryHost, log: .discarding),
                report: display.show)
            let start = monotonicNanoseconds()
            let pulled = try await puller.pull(reference, skipsBase: skipBase)
            display.finish()
            let seconds = Double(monotonicNanoseconds() - start) / 1e9
            output(
                jsonObject { writer in
                    writer.member("image", "\(reference)")
                    writer.member("digest", "\(pulled.digest)")
                    writer.member("folder", pulled.root)
                    writer.member("receivedBytes", pulled.receivedByteCount)
                    writer.name("seconds")
                    writer.number(seconds)
                } + [0x0A])
            return .done
        } catch {
            complain("\(error)")
            return exitStatus(of: error)
        }
    }
}

/// The exit code for what went wrong with an image.
func exitStatus(of error: ImageError) -> ExitStatus {
    switch error.kind {
    case .reference, .package, .notAnApp: .badData
    case .unreachable, .busy: .unavailable
    case .unauthorized: .refused
    case .timeLimit: .timedOut
    case .store: .cannotCreate
    case .notFound, .protocolViolation, .unsupported, .verification, .hostileLayer, .limit: .failed
    }
}
