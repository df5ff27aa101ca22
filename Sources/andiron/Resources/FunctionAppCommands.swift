/// `andiron functionapp`: apps that come from images, and their settings.
import ArgumentParser
import ConfigurationFiles
import Glibc
import Images
import JSONText
import Resources

struct FunctionAppCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "functionapp", abstract: "Function apps and their settings.",
        subcommands: [
            FunctionAppCreate.self, FunctionAppList.self, FunctionAppShow.self, FunctionAppDelete.self,
            FunctionAppConfig.self, FunctionAppDeployment.self,
        ])
}

struct FunctionAppCreate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Create an app; andiron start NAME runs it.")
    @OptionGroup var resource: NewResourceOptions
    @Option(name: [.customShort("s"), .customLong("storage-account")], help: "Its storage account.")
    var storageAccount: String?
    @Option(name: [.customShort("p"), .long], help: "Its App Service plan.")
    var plan: String?
    @Option(help: "Accepted for a consumption plan.")
    var consumptionPlanLocation: String?
    @Option(
        name: [.customShort("i"), .customLong("image"), .customLong("deployment-container-image-name")],
        help: "The image it runs.")
    var image: String?
    @Option(
        name: [.customLong("registry-server"), .customLong("docker-registry-server-url")], help: "The image's registry."
    )
    var registryServer: String?
    @Option(
        name: [.customLong("registry-username"), .customLong("docker-registry-server-user")],
        help: "The user name there.")
    var registryUsername: String?
    @Option(
        name: [.customLong("registry-password"), .customLong("docker-registry-server-password")],
        help: "The password there.")
    var registryPassword: String?
    @Option(help: "python, custom, …")
    var runtime: String?
    @Option(help: "4.")
    var functionsVersion = "4"
    @Option(help: "Linux; there is no other here.")
    var osType: String?
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            try ResourceKind.functionApp.check(resource.name)
            let store = resourceStore()
            let folder = "\(store.folder)/apps/\(resource.name)"
            var settings: [(String, String)] = [("FUNCTIONS_EXTENSION_VERSION", "~\(functionsVersion)")]
            let app = try store.update { document throws(ResourceError) in
                let location = try document.location(resource.group, resource.location)
                if let old = try? document.find(.functionApp, resource.name),
                    old["resourceGroup"]?.string?.caseInsensitiveEquals(resource.group) != true
                {
                    throw .exists("The function app named \(resource.name) is already in use.")
                }
                if let plan { _ = try document.find(.plan, plan, in: resource.group) }
                if let storageAccount {
                    let account = try document.find(.storageAccount, storageAccount)
                    settings.append(("AzureWebJobsStorage", NewResource.connectionString(of: account)))
                }
                let app = NewResource.functionApp(
                    resource.name, group: resource.group, location: location, plan: plan, image: image, folder: folder)
                document.put(.functionApp, app)
                return app
            }
            if let runtime { settings.append(("FUNCTIONS_WORKER_RUNTIME", runtime)) }
            if let image {
                let key = randomBytes(32).map { String(Int($0) | 0x100, radix: 16).dropFirst().uppercased() }.joined()
                settings += [
                    ("MACHINEKEY_DecryptionKey", key),
                    ("DOCKER_CUSTOM_IMAGE_NAME", String(linuxFxVersion(image).dropFirst("DOCKER|".count))),
                    ("FUNCTION_APP_EDIT_MODE", "readOnly"), ("WEBSITES_ENABLE_APP_SERVICE_STORAGE", "false"),
                ]
            }
            for (name, value) in [
                ("DOCKER_REGISTRY_SERVER_URL", registryServer), ("DOCKER_REGISTRY_SERVER_USERNAME", registryUsername),
                ("DOCKER_REGISTRY_SERVER_PASSWORD", registryPassword),
            ] { if let value { settings.append((name, value)) } }
            settings.append(("WEBSITE_SITE_NAME", resource.name))
            try AppSettingsFile(folder: folder).change(set: settings)
            output.show(app)
        }
    }
}

struct FunctionAppList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The function apps.")
    @OptionGroup var filter: GroupFilter
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            try filter.show(.functionApp, output)
        }
    }
}

struct FunctionAppShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One function app.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var output: ResourceOutput

    func run() throws { showResource(.functionApp, resource, output) }
}

struct FunctionAppDelete: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "delete", abstract: "Delete a function app.")
    @OptionGroup var resource: NamedResource

    func run() throws {
        // Azure's command line does not ask here.
        var confirmation = Confirmation()
        confirmation.yes = true
        deleteResource(.functionApp, resource, confirmation)
    }
}

struct FunctionAppConfig: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "The settings of an app.",
        subcommands: [AppSettingsCommand.self, ContainerCommand.self])
}

/// The app, and the file with its settings.
struct ConfiguredApp: ParsableArguments {
    @OptionGroup var resource: NamedResource

    func find() throws(ResourceError) -> (app: JSONValue, file: AppSettingsFile, slotSettings: Set<String>) {
        let app = try resourceStore().read().find(.functionApp, resource.name, in: resource.group)
        let slots = Set((app["_slotSettings"]?.elements ?? []).compactMap(\.string))
        return (app, AppSettingsFile(folder: app["folder"]?.string ?? ""), slots)
    }

    /// Marks settings as belonging to a slot.
    func mark(_ names: [String], remove: [String] = []) throws(ResourceError) {
        if names.isEmpty, remove.isEmpty { return }
        try resourceStore().update { document throws(ResourceError) in
            let app = try document.find(.functionApp, resource.name, in: resource.group)
            var slots = Set((app["_slotSettings"]?.elements ?? []).compactMap(\.string))
            slots.formUnion(names)
            slots.subtract(remove)
            document.put(.functionApp, app.setting("_slotSettings", .list(slots.sorted().map { .text($0) })))
        }
    }

    /// Keeps what `functionapp show` says of the image in step with the settings.
    func noteImage(_ image: String?) throws(ResourceError) {
        try resourceStore().update { document throws(ResourceError) in
            let app = try document.find(.functionApp, resource.name, in: resource.group)
            document.put(
                .functionApp,
                app.setting("siteConfig", .record(["linuxFxVersion": .text(image.map(linuxFxVersion) ?? "")]))
                    .setting("kind", .text(image == nil ? "functionapp,linux" : "functionapp,linux,container")))
        }
    }
}

struct AppSettingsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "appsettings", abstract: "The app settings.",
        subcommands: [AppSettingsList.self, AppSettingsSet.self, AppSettingsDelete.self])
}

struct AppSettingsList: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "The settings; a registry's password is null.")
    @OptionGroup var app: ConfiguredApp
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let (_, file, slots) = try app.find()
            output.show(try file.list(slotSettings: slots))
        }
    }
}

struct AppSettingsSet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Set settings; a running app recycles. No value is printed.")
    @OptionGroup var app: ConfiguredApp
    @Option(parsing: .upToNextOption, help: "name=value, or JSON.")
    var settings: [String] = []
    @Option(parsing: .upToNextOption, help: "name=value that stays with the slot.")
    var slotSettings: [String] = []
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let (_, file, _) = try app.find()
            let sticky = try parseSettings(slotSettings)
            try file.change(set: try parseSettings(settings) + sticky)
            try app.mark(sticky.map(\.0))
            output.show(try file.list(slotSettings: try app.find().slotSettings, redacting: true))
        }
    }
}

struct AppSettingsDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Remove settings; a running app recycles.")
    @OptionGroup var app: ConfiguredApp
    @Option(parsing: .upToNextOption, help: "Names.")
    var settingNames: [String]
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let (_, file, _) = try app.find()
            try file.change(set: [], remove: settingNames)
            try app.mark([], remove: settingNames)
            output.show(try file.list(slotSettings: try app.find().slotSettings, redacting: true))
        }
    }
}

struct ContainerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "container", abstract: "The image of an app.",
        subcommands: [ContainerSet.self, ContainerShow.self, ContainerDelete.self])
}

struct ContainerSet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Set the image and its registry; a running app changes over.",
        discussion: """
            Examples:
              andiron functionapp config container set --name myapp --resource-group rg \\
                --image myregistry.azurecr.io/package:1 --registry-server https://myregistry.azurecr.io \\
                --registry-username myregistry --registry-password secret
            """)
    @OptionGroup var app: ConfiguredApp
    @Option(
        name: [.customShort("i"), .customLong("image"), .customLong("docker-custom-image-name"), .customShort("c")],
        help: "The image.")
    var image: String?
    @Option(
        name: [.customShort("r"), .customLong("registry-server"), .customLong("docker-registry-server-url")],
        help: "Its registry.")
    var registryServer: String?
    @Option(
        name: [.customShort("u"), .customLong("registry-username"), .customLong("docker-registry-server-user")],
        help: "The user name there.")
    var registryUsername: String?
    @Option(
        name: [.customShort("p"), .customLong("registry-password"), .customLong("docker-registry-server-password")],
        help: "The password there.")
    var registryPassword: String?
    @Option(name: [.customShort("t"), .customLong("enable-app-service-storage")], help: "true or false.")
    var enableAppServiceStorage: Bool?
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let (_, file, slots) = try app.find()
            var changes: [(String, String)] = []
            if let registryServer { changes.append(("DOCKER_REGISTRY_SERVER_URL", registryServer)) }
            var credentials = (registryUsername, registryPassword)
            if let image, credentials == (nil, nil) { credentials = try lookUp(image, registryServer, file) }
            if let name = credentials.0 { changes.append(("DOCKER_REGISTRY_SERVER_USERNAME", name)) }
            if let password = credentials.1 { changes.append(("DOCKER_REGISTRY_SERVER_PASSWORD", password)) }
            if let image {
                do throws(ImageError) {
                    _ = try ImageReference(image)
                } catch {
                    throw .argument(error.message, remedy: error.remedy)
                }
                changes.append(("DOCKER_CUSTOM_IMAGE_NAME", linuxFxVersion(image)))
                changes.append(("WEBSITES_ENABLE_APP_SERVICE_STORAGE", "\(enableAppServiceStorage ?? false)"))
            } else if let enableAppServiceStorage {
                changes.append(("WEBSITES_ENABLE_APP_SERVICE_STORAGE", "\(enableAppServiceStorage)"))
            }
            try file.change(set: changes)
            if let image { try app.noteImage(image) }
            output.show(try file.container(slotSettings: slots))
        }
    }

    /// The credentials of the image's registry, when it was made with acr create and none are set.
    private func lookUp(
        _ image: String, _ server: String?, _ file: AppSettingsFile
    ) throws(ResourceError) -> (String?, String?) {
        let host = (try? ImageReference(image))?.domain ?? hostOf(server ?? "")
        let known = try resourceStore().read().all(.registry).first { $0["loginServer"]?.string == host }
        guard let known else { return (nil, nil) }
        if try file.values().contains(where: { $0.name == "DOCKER_REGISTRY_SERVER_PASSWORD" && !$0.value.isEmpty }) {
            return (nil, nil)
        }
        complain("No credential was provided to access Azure Container Registry. Trying to look up...")
        let name = known["name"]?.string ?? ""
        guard known["adminUserEnabled"]?.bool == true else {
            complain(
                "Failed to retrieve container registry credentials. Please either provide the credentials or run 'andiron acr update -n \(name) --admin-enabled true' to enable admin first."
            )
            return (nil, nil)
        }
        return (name, known["_password"]?.string)
    }
}

struct ContainerShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "The image and its registry.")
    @OptionGroup var app: ConfiguredApp
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let (_, file, slots) = try app.find()
            output.show(try file.container(slotSettings: slots))
        }
    }
}

struct ContainerDelete: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete", abstract: "Remove the image and its registry.")
    @OptionGroup var app: ConfiguredApp
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let (_, file, slots) = try app.find()
            try file.change(
                set: [],
                remove: [
                    "DOCKER_REGISTRY_SERVER_URL", "DOCKER_REGISTRY_SERVER_USERNAME", "DOCKER_REGISTRY_SERVER_PASSWORD",
                    "DOCKER_CUSTOM_IMAGE_NAME",
                ])
            try app.noteImage(nil)
            output.show(try file.container(slotSettings: slots))
        }
    }
}

struct FunctionAppDeployment: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "deployment", abstract: "How an app is updated.", subcommands: [DeploymentContainer.self])
}

struct DeploymentContainer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "container", abstract: "Updates by the registry's webhook.",
        subcommands: [DeploymentContainerConfig.self, DeploymentContainerURL.self])
}

/// `{"CI_CD_URL", "DOCKER_ENABLE_CI"}`; the password of the webhook lies beside the app's other state.
private func webhook(_ app: JSONValue, _ file: AppSettingsFile) throws(ResourceError) -> JSONValue {
    let folder = app["folder"]?.string ?? ""
    let isOn = try file.values().contains { $0.name == "DOCKER_ENABLE_CI" && $0.value.lowercased() == "true" }
    let password = try WebhookPassword(stateFolder: folder + "/.andiron").value()
    let port = try file.values().first { $0.name == "WEBSITE_HOSTNAME" }?.value ?? "localhost:7071"
    let name = app["name"]?.string ?? ""
    return .record([
        "CI_CD_URL": .text(isOn ? "http://$\(name):\(password)@\(port)/docker/hook" : ""),
        "DOCKER_ENABLE_CI": .flag(isOn),
    ])
}

struct DeploymentContainerConfig: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Switch updates by webhook on or off.")
    @OptionGroup var app: ConfiguredApp
    @Option(name: [.customShort("e"), .customLong("enable-cd")], help: "true or false.")
    var enableCD: Bool
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let (resource, file, _) = try app.find()
            try file.change(set: [("DOCKER_ENABLE_CI", "\(enableCD)")])
            output.show(try webhook(resource, file))
        }
    }
}

struct DeploymentContainerURL: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show-cd-url", abstract: "The address for the registry's webhook.")
    @OptionGroup var app: ConfiguredApp
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let (resource, file, _) = try app.find()
            output.show(try webhook(resource, file))
        }
    }
}
