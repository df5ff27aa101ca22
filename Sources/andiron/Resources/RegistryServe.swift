/// `andiron acr serve`: a registry on this machine with a user name and two passwords, either of which works.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import HTTPClients
import HTTPServers
import Images
import JSONText
import Resources

struct RegistryServe: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Run docker-registry for a registry that was made with acr create.",
        discussion: """
            Runs until it is told to stop. A token service beside it takes either of the two passwords, as they are
            at that moment: acr credential renew needs no restart.

            Examples:
              andiron acr create --name myregistry --resource-group rg --login-server localhost:5000
              andiron acr serve --name myregistry
              andiron acr serve --name myregistry --webhook "$(andiron functionapp deployment container show-cd-url \\
                --name myapp --query CI_CD_URL --output tsv)"
            """)
    @OptionGroup var resource: NamedResource
    @Option(help: "Where its images are kept (default: with the local resources).")
    var folder: String?
    @Option(help: "An address that is told of every push, user name and password in it; again for more.")
    var webhook: [String] = []
    @Option(help: "Write a JSON file with loginServer and pid when ready.")
    var readyFile: String?

    func validate() throws {
        for address in webhook where !address.hasPrefix("http") || address.contains(where: { "\"\\ \n".contains($0) }) {
            throw ValidationError("--webhook is '\(address)'; it is an http or https address.")
        }
    }

    /// Its output goes to a file, and it ends when descriptor 3, whose other end is ours, is closed: with us, however that is.
    private static let script = """
        "$0" serve "$1" >"$2" 2>&1 3<&- & registry=$!
        (read _ <&3; kill $registry) 2>/dev/null &
        exec 3<&-
        wait $registry
        """

    /// How long docker-registry may take to answer, in nanoseconds.
    private static let startTimeLimit: UInt64 = 30_000_000_000

    func run() throws {
        let command = self
        runLoop { await command.serve() }
    }

    @EventLoop
    private func serve() async -> ExitStatus {
        let store = resourceStore()
        let name = resource.name
        let server: String
        do throws(ResourceError) {
            server = try store.read().find(.registry, name, in: resource.group)["loginServer"]?.string ?? ""
        } catch {
            complain("\(error)")
            return .failed
        }
        guard isLoopback(server), let port = Int(server.split(separator: ":").last ?? "") else {
            complain(
                "error[AN9023]: the login server of '\(name)' is \(server), which is no port of this machine\n  try: andiron acr update --name \(name) --login-server localhost:5000"
            )
            return .badData
        }
        guard let program = program(["docker-registry", "registry"]) else {
            complain("error[AN9023]: docker-registry is not installed\n  try: apt-get install docker-registry")
            return .unavailable
        }
        guard let key = SigningKey(name: name) else {
            complain("error[AN9024]: no key can be made to sign tokens with")
            return .failed
        }
        let tokens = RegistryTokenService(key: key, service: server) { try? store.read().find(.registry, name) }
        let place = folder.map { absolutePath($0, in: currentFolder()) } ?? "\(store.folder)/registries/\(name)"
        do throws(SystemError) {
            let listener = try HTTPListener(address: "127.0.0.1", port: 0, limits: HTTPLimits(), responder: tokens)
            defer { listener.close() }
            try createFolders(place, mode: 0o700)
            try writeFileAtomically(place + "/signer.pem", Array(pem(key.certificate).utf8))
            try writeFileAtomically(
                place + "/config.yml", Array(configuration(place, server, port, listener.port).utf8), mode: 0o600)
            let child = try ChildProcess(
                ChildCommand(
                    executable: "/bin/sh",
                    arguments: ["-c", Self.script, program, place + "/config.yml", place + "/registry.log"],
                    environment: processEnvironment(), folder: place, hasChannel: true))
            return await watch(child, server, place)
        } catch {
            complain("\(error)")
            return .cannotCreate
        }
    }

    @EventLoop
    private func watch(_ child: ChildProcess, _ server: String, _ place: String) async -> ExitStatus {
        let ended = Gate()
        let signals = [SIGTERM, SIGINT].map { signal in SignalSource(signal) { ended.open() } }
        loopTask {
            _ = await child.waitForExit()
            ended.open()
        }
        loopTask {
            guard await answers(server, until: monotonicNanoseconds() + Self.startTimeLimit, ended) else {
                return ended.open()
            }
            output(Array("The registry is at \(server), its images in \(place)\n".utf8))
            guard let readyFile else { return }
            let document = jsonObject { writer in
                writer.member("loginServer", server)
                writer.member("pid", Int(getpid()))
            }
            do throws(SystemError) {
                try writeFileAtomically(absolutePath(readyFile, in: currentFolder()), document)
            } catch {
                complain("\(error)")
            }
        }
        await ended.wait()
        withExtendedLifetime(signals) {}
        if let readyFile { unlink(absolutePath(readyFile, in: currentFolder())) }
        if let exit = child.exit {
            let log = readFile(place + "/registry.log", limit: 1 << 16).map { String(decoding: $0, as: UTF8.self) }
            let last = log?.split(separator: "\n").last.map { ": \($0)" } ?? ""
            complain("error[AN9024]: docker-registry has ended with \(exit)\(last)\n  try: \(place)/registry.log")
            return .failed
        }
        child.kill(signal: SIGTERM)
        _ = await child.waitForExit()
        return .done
    }

    /// Whether the registry answers before a time on the monotonic clock.
    @EventLoop
    private func answers(_ server: String, until deadline: UInt64, _ ended: Gate) async -> Bool {
        let client = HTTPClient()
        while monotonicNanoseconds() < deadline, !ended.isOpen {
            let request = HTTPClientRequest(url: "http://\(server)/v2/", timeout: .seconds(1))
            if let answer = try? await client.send(request), answer.status == 401 { return true }
            await sleep(for: .milliseconds(50))
        }
        return false
    }

    private func configuration(_ place: String, _ server: String, _ port: Int, _ tokenPort: Int) -> String {
        let hooks = webhook.enumerated().map { index, address in
            "\n    - {name: webhook\(index), url: \"\(address)\", timeout: 5s, threshold: 3, backoff: 1s}"
        }
        return """
            version: 0.1
            log: {level: info}
            storage:
              filesystem: {rootdirectory: "\(place)/data"}
              delete: {enabled: true}
            http: {addr: "127.0.0.1:\(port)", secret: "\(newPassword())"}
            auth:
              token:
                realm: "http://127.0.0.1:\(tokenPort)/oauth2/token"
                service: "\(server)"
                issuer: \(RegistryTokenService.issuer)
                rootcertbundle: "\(place)/signer.pem"
            notifications:
              endpoints:\(hooks.isEmpty ? " []" : hooks.joined())

            """
    }

    private func pem(_ certificate: [UInt8]) -> String {
        var text = "-----BEGIN CERTIFICATE-----\n"
        var rest = encodeBase64(certificate)[...]
        while !rest.isEmpty {
            text += rest.prefix(64) + "\n"
            rest = rest.dropFirst(64)
        }
        return text + "-----END CERTIFICATE-----\n"
    }

    /// The first of these programs that is in `PATH`.
    private func program(_ names: [String]) -> String? {
        let folders = (processEnvironment()["PATH"] ?? "/usr/bin").split(separator: ":")
        return names.lazy.flatMap { name in folders.map { "\($0)/\(name)" } }.first { access($0, X_OK) == 0 }
    }
}
