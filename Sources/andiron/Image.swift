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
        abstract: "Images in the store, and between it and registries.",
        subcommands: [ImagePull.self, ImagePush.self, ImageList.self, ImagePrune.self])
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
        let terminal = isatty(2) == 1 ? LineWriter(descriptor: 2) : nil
        let display = PullDisplay(terminal: terminal, descriptor: 2)
        let end = { @EventLoop in
            display.finish()
            terminal?.close()
        }
        do throws(ImageError) {
            let reference = try ImageReference(image)
            let store = ContentStore(cacheFolder: AppLocation.cacheFolder())
            let puller = ImagePuller(
                store: store, client: registry.client(for: reference.registryHost, log: .discarding),
                report: display.show)
            let start = monotonicNanoseconds()
            let pulled = try await puller.pull(reference, skipsBase: skipBase)
            end()
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
            end()
            complain("\(error)")
            return exitStatus(of: error)
        }
    }
}

struct ImagePush: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "push",
        abstract: "Push an image that was packaged here, by its digest.",
        discussion: """
            Examples:
              andiron image push sha256:86e0… myregistry.azurecr.io/package:2
            """)

    @Argument(help: "The digest, or a location that ends in one.")
    var digest: String

    @Argument(help: "Where to: registry/repository:tag.")
    var target: String

    @OptionGroup var registry: RegistryOptions

    func run() throws {
        let command = self
        runLoop { await command.push() }
    }

    @EventLoop
    private func push() async -> ExitStatus {
        do throws(ImageError) {
            let target = try ImageReference(target)
            guard let digest = Digest(digest.split(separator: "@").last ?? "") else {
                throw ImageError(
                    .reference, image: "'\(digest)'", step: "", "is no digest", remedy: "sha256: and 64 digits")
            }
            let store = ContentStore(cacheFolder: AppLocation.cacheFolder())
            let built = try store.package(digest)
            let client = registry.client(for: target.registryHost, log: .discarding)
            _ = try await client.push(
                blobs: built.blobs, manifest: built.manifest, mediaType: built.mediaType, to: [target]
            ) { descriptor, outcome in complain("\(descriptor.digest.short): \(outcome.rawValue)") }
            output(Array("\(target.domain)/\(target.repository)@\(digest)\n".utf8))
            return .done
        } catch {
            complain("\(error)")
            return exitStatus(of: error)
        }
    }
}

struct ImageList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The images in the store.")

    @OptionGroup var output: ResourceOutput

    func run() throws {
        let images = ContentStore(cacheFolder: AppLocation.cacheFolder()).images()
        output.show(
            .list(
                images.map { image in
                    .record([
                        "digest": .text("\(image.digest)"), "layers": .number(image.layers.count),
                        "bytes": .number(image.byteCount), "usedAt": .number(image.usedAt),
                    ])
                }))
    }
}

struct ImagePrune: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune", abstract: "Delete images that are not in use.",
        discussion: """
            Examples:
              andiron image prune                       down to the store's usual size
              andiron image prune --keep-bytes 1000000000
              andiron image prune --all
            """)

    @Flag(help: "All that no running app uses.")
    var all = false

    @Option(help: "Keep the images used last, up to so many bytes.")
    var keepBytes: Int?

    func validate() throws {
        if let keepBytes, keepBytes < 0 { throw ValidationError("--keep-bytes is \(keepBytes); it is 0 or more.") }
    }

    func run() throws {
        let store = ContentStore(cacheFolder: AppLocation.cacheFolder())
        let done = store.collect(keeping: all ? 0 : keepBytes ?? ContentStore.defaultByteLimit)
        if done.isBusy {
            complain("images are being pulled; try again when that is done")
            Glibc.exit(ExitStatus.unavailable.rawValue)
        }
        store.emptyTrash()
        output(
            jsonObject { writer in
                writer.member("images", done.images)
                writer.member("layers", done.layers)
                writer.member("blobs", done.blobs)
                writer.member("bytes", done.byteCount)
            } + [0x0A])
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
