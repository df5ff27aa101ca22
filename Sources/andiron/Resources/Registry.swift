/// `andiron acr`: registries by name, their two passwords, and what is in them.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import HTTPClients
import Images
import JSONText
import Resources

struct ContainerRegistry: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "acr", abstract: "Container registries.",
        subcommands: [
            RegistryCreate.self, RegistryList.self, RegistryShow.self, RegistryUpdate.self, RegistryDelete.self,
            RegistryCheckName.self, RegistryCredential.self, RegistryRepository.self, RegistryLogin.self,
            RegistryServe.self,
        ])
}

struct RegistryCreate: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "create", abstract: "Name a registry.")
    @OptionGroup var resource: NewResourceOptions
    @Option(help: "Basic, Standard or Premium.")
    var sku = "Basic"
    @Option(help: "true: a user name with two passwords.")
    var adminEnabled = true
    @Option(help: "Where it is: host:port, http:// before it for a registry without TLS.")
    var loginServer = "127.0.0.1:5000"
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            try ResourceKind.registry.check(resource.name)
            let registry = try resourceStore().update { document throws(ResourceError) in
                let location = try document.location(resource.group, resource.location)
                if (try? document.find(.registry, resource.name)) != nil {
                    throw .exists("The registry \(resource.name) is already in use.")
                }
                let registry = NewResource.registry(
                    resource.name, group: resource.group, location: location, sku: sku, adminEnabled: adminEnabled,
                    loginServer: hostOf(loginServer))
                document.put(.registry, registry)
                return registry
            }
            output.show(registry)
        }
    }
}

struct RegistryList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The registries.")
    @OptionGroup var filter: GroupFilter
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in try filter.show(.registry, output)
        }
    }
}

struct RegistryShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One registry.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var output: ResourceOutput

    func run() throws { showResource(.registry, resource, output) }
}

struct RegistryUpdate: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "update", abstract: "Change a registry.")
    @OptionGroup var resource: NamedResource
    @Option(help: "true or false.")
    var adminEnabled: Bool?
    @Option(help: "Where it is now.")
    var loginServer: String?
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let registry = try resourceStore().update { document throws(ResourceError) in
                var registry = try document.find(.registry, resource.name, in: resource.group)
                if let adminEnabled { registry = registry.setting("adminUserEnabled", .flag(adminEnabled)) }
                if let loginServer { registry = registry.setting("loginServer", .text(hostOf(loginServer))) }
                document.put(.registry, registry)
                return registry
            }
            output.show(registry)
        }
    }
}

struct RegistryDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Forget a registry; its images stay.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var confirmation: Confirmation

    func run() throws { deleteResource(.registry, resource, confirmation) }
}

struct RegistryCheckName: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "check-name", abstract: "Whether a name can be had.")
    @Option(name: [.short, .long], help: "The name.")
    var name: String
    @OptionGroup var output: ResourceOutput

    func run() throws { checkName(.registry, name, output) }
}

// MARK: Credentials

struct RegistryCredential: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "credential", abstract: "The user name and the two passwords.",
        subcommands: [RegistryCredentialShow.self, RegistryCredentialRenew.self])
}

/// What `credential show` prints.
private func credentials(_ registry: JSONValue) throws(ResourceError) -> JSONValue {
    let name = registry["name"]?.string ?? ""
    guard registry["adminUserEnabled"]?.bool == true else {
        throw .argument(
            "Failed to retrieve container registry credentials. Admin user is not enabled for '\(name)'.",
            remedy: "andiron acr update -n \(name) --admin-enabled true")
    }
    return .record([
        "passwords": .list(
            ["password", "password2"].map { key in
                .record(["name": .text(key), "value": .optional(registry["_" + key]?.string)])
            }), "username": .text(name),
    ])
}

struct RegistryCredentialShow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "The user name and the two passwords.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            output.show(try credentials(try resourceStore().read().find(.registry, resource.name, in: resource.group)))
        }
    }
}

struct RegistryCredentialRenew: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "renew", abstract: "Make one password anew.")
    @OptionGroup var resource: NamedResource
    @Option(help: "password or password2.")
    var passwordName: String
    @OptionGroup var output: ResourceOutput

    func validate() throws {
        guard ["password", "password2"].contains(passwordName) else {
            throw ValidationError("--password-name is '\(passwordName)'; it is password or password2.")
        }
    }

    func run() throws {
        reporting { () throws(ResourceError) in
            let registry = try resourceStore().update { document throws(ResourceError) in
                let registry = try document.find(.registry, resource.name, in: resource.group)
                    .setting("_" + passwordName, .text(newPassword()))
                document.put(.registry, registry)
                return registry
            }
            output.show(try credentials(registry))
        }
    }
}

struct RegistryLogin: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "login", abstract: "Check that the registry takes the credentials.")
    @OptionGroup var resource: NamedResource

    func run() throws {
        let (name, group) = (resource.name, resource.group)
        reporting { () throws(ResourceError) in
            let registry = try resourceStore().read().find(.registry, name, in: group)
            let client = RegistryByName(registry)
            runLoop {
                do throws(ImageError) {
                    _ = try await client.connect().repositories()
                    output(Array("Login Succeeded\n".utf8))
                    return .done
                } catch {
                    complain("\(error)")
                    return exitStatus(of: error)
                }
            }
        }
    }
}

// MARK: What is in it

/// A registry that was made with `acr create`, with its credentials.
struct RegistryByName: Sendable {
    let host: String
    private let access: RegistryAccess

    init(_ registry: JSONValue, username: String? = nil, password: String? = nil) {
        host = registry["loginServer"]?.string ?? ""
        let passwords = password.map { [$0] } ?? ["_password", "_password2"].compactMap { registry[$0]?.string }
        access = .choose(
            for: host, serverURL: nil, username: username ?? registry["name"]?.string, passwords: passwords,
            environment: processEnvironment())
    }

    @EventLoop
    func connect() -> RegistryClient {
        RegistryClient(
            host: host, access: access, http: HTTPClient(), log: .discarding,
            deadline: monotonicNanoseconds() + 60_000_000_000)
    }
}

struct RegistryRepository: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repository", abstract: "What is in a registry.",
        subcommands: [RepositoryList.self, RepositoryTags.self, RepositoryDelete.self])
}

/// Which registry, and who is asking.
struct RegistryQuestion: ParsableArguments {
    @Option(name: [.short, .long], help: "The registry.")
    var name: String

    @Option(name: [.customShort("u"), .long], help: "The user name, when it is not the registry's own.")
    var username: String?

    @Option(name: [.customShort("p"), .long], help: "The password.")
    var password: String?

    /// Asks the registry and shows the answer, or ends with what went wrong.
    func ask(
        _ output: ResourceOutput,
        _ body: @escaping @EventLoop (RegistryClient, String) async throws(ImageError) -> JSONValue
    ) -> Never {
        let registry: RegistryByName
        do throws(ResourceError) {
            registry = RegistryByName(
                try resourceStore().read().find(.registry, name), username: username, password: password)
        } catch {
            complain("\(error)")
            Glibc.exit(ExitStatus.failed.rawValue)
        }
        runLoop {
            do throws(ImageError) {
                output.show(try await body(registry.connect(), registry.host))
                return .done
            } catch {
                complain("\(error)")
                return exitStatus(of: error)
            }
        }
    }
}

struct RepositoryList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The repositories.")
    @OptionGroup var registry: RegistryQuestion
    @OptionGroup var output: ResourceOutput

    func run() throws {
        registry.ask(output) { (client, _) async throws(ImageError) in
            .list(try await client.repositories().map { .text($0) })
        }
    }
}

struct RepositoryTags: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show-tags", abstract: "The tags of a repository.")
    @OptionGroup var registry: RegistryQuestion
    @Option(help: "The repository.")
    var repository: String
    @OptionGroup var output: ResourceOutput

    func run() throws {
        let repository = repository
        registry.ask(output) { (client, host) async throws(ImageError) in
            .list(try await client.tags(try ImageReference("\(host)/\(repository)")).map { .text($0) })
        }
    }
}

struct RepositoryDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Delete an image, by tag or digest.")
    @OptionGroup var registry: RegistryQuestion
    @Option(name: [.customShort("t"), .long], help: "repository:tag or repository@sha256:digest.")
    var image: String
    @OptionGroup var confirmation: Confirmation
    @OptionGroup var output: ResourceOutput

    func run() throws {
        let image = image
        reporting { () throws(ResourceError) in
            try confirmation.confirm("Are you sure you want to delete the image '\(image)'? (y/n):")
        }
        registry.ask(output) { (client, host) async throws(ImageError) in
            let digest = try await client.delete(try ImageReference("\(host)/\(image)"))
            return .record(["manifestsDeleted": .list([.text("\(digest)")])])
        }
    }
}
