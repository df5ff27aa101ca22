/// `andiron storage account` and `andiron redis`.
import ArgumentParser
import ConfigurationFiles
import JSONText
import Resources

struct Storage: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "storage", abstract: "Storage accounts.", subcommands: [StorageAccount.self])
}

struct StorageAccount: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "account", abstract: "Storage accounts.",
        subcommands: [
            StorageCreate.self, StorageList.self, StorageShow.self, StorageDelete.self, StorageConnectionString.self,
            StorageKeys.self, StorageCheckName.self,
        ])
}

struct StorageCreate: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "create", abstract: "Create a storage account.")
    @OptionGroup var resource: NewResourceOptions
    @Option(help: "Standard_LRS, Standard_GRS, …")
    var sku = "Standard_RAGRS"
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            try ResourceKind.storageAccount.check(resource.name)
            let account = try resourceStore().update { document throws(ResourceError) in
                let location = try document.location(resource.group, resource.location)
                if let old = try? document.find(.storageAccount, resource.name) {
                    guard old["resourceGroup"]?.string?.caseInsensitiveEquals(resource.group) == true else {
                        throw .exists("The storage account named \(resource.name) is already taken.")
                    }
                    return old
                }
                let account = NewResource.storageAccount(
                    resource.name, group: resource.group, location: location, sku: sku)
                document.put(.storageAccount, account)
                return account
            }
            output.show(account)
        }
    }
}

struct StorageList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The storage accounts.")
    @OptionGroup var filter: GroupFilter
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            try filter.show(.storageAccount, output)
        }
    }
}

struct StorageShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One storage account.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var output: ResourceOutput

    func run() throws { showResource(.storageAccount, resource, output) }
}

struct StorageDelete: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "delete", abstract: "Delete a storage account.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var confirmation: Confirmation

    func run() throws { deleteResource(.storageAccount, resource, confirmation) }
}

struct StorageConnectionString: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show-connection-string", abstract: "The connection string of a storage account.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            let account = try resourceStore().read().find(.storageAccount, resource.name, in: resource.group)
            output.show(.record(["connectionString": .text(NewResource.connectionString(of: account))]))
        }
    }
}

struct StorageKeys: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys", abstract: "Keys of a storage account.",
        subcommands: [StorageKeysList.self, StorageKeysRenew.self])
}

struct StorageKeysList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "Both keys.")
    @Option(name: [.customShort("n"), .customLong("account-name")], help: "The storage account.")
    var name: String
    @Option(name: [.customShort("g"), .customLong("resource-group")], help: "Its group.")
    var group: String?
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            output.show(storageKeys(try resourceStore().read().find(.storageAccount, name, in: group)))
        }
    }
}

struct StorageKeysRenew: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "renew", abstract: "Make one key anew.")
    @Option(name: [.customShort("n"), .customLong("account-name")], help: "The storage account.")
    var name: String
    @Option(name: [.customShort("g"), .customLong("resource-group")], help: "Its group.")
    var group: String?
    @Option(help: "primary or secondary.")
    var key: String
    @OptionGroup var output: ResourceOutput

    func validate() throws {
        guard ["primary", "secondary", "key1", "key2"].contains(key) else {
            throw ValidationError("--key is '\(key)'; it is primary or secondary.")
        }
    }

    func run() throws {
        reporting { () throws(ResourceError) in
            let account = try resourceStore().update { document throws(ResourceError) in
                let account = try document.find(.storageAccount, name, in: group)
                    .setting(["primary", "key1"].contains(key) ? "_key1" : "_key2", .text(newKey(64)))
                document.put(.storageAccount, account)
                return account
            }
            output.show(storageKeys(account))
        }
    }
}

private func storageKeys(_ account: JSONValue) -> JSONValue {
    .list(
        ["key1", "key2"].map { name in
            .record([
                "keyName": .text(name), "permissions": .text("FULL"),
                "value": .optional(account["_" + name]?.string),
            ])
        })
}

struct StorageCheckName: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "check-name", abstract: "Whether a name can be had.")
    @Option(name: [.short, .long], help: "The name.")
    var name: String
    @OptionGroup var output: ResourceOutput

    func run() throws { checkName(.storageAccount, name, output) }
}

extension ParsableCommand {
    func checkName(_ kind: ResourceKind, _ name: String, _ output: ResourceOutput) {
        reporting { () throws(ResourceError) in
            var reason: String?
            var message: String?
            do throws(ResourceError) {
                try kind.check(name)
                if (try? resourceStore().read().find(kind, name)) != nil {
                    reason = "AlreadyExists"
                    message = "The \(kind.words.lowercased()) named \(name) is already in use."
                }
            } catch {
                reason = "Invalid"
                message = error.message
            }
            output.show(
                .record([
                    "message": .optional(message), "nameAvailable": .flag(reason == nil), "reason": .optional(reason),
                ]))
        }
    }
}

struct Redis: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Redis caches.",
        subcommands: [
            RedisCreate.self, RedisList.self, RedisShow.self, RedisKeys.self, RedisRegenerateKeys.self,
            RedisDelete.self,
        ])
}

struct RedisCreate: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "create", abstract: "Create a Redis cache.")
    @OptionGroup var resource: NewResourceOptions
    @Option(help: "Basic, Standard or Premium.")
    var sku = "Basic"
    @Option(help: "C0 to C6, P1 to P5.")
    var vmSize = "C0"
    @Flag(help: "Port 6379 without TLS too.")
    var enableNonSslPort = false
    @OptionGroup var output: ResourceOutput

    func validate() throws {
        guard ["basic", "standard", "premium"].contains(sku.lowercased()) else {
            throw ValidationError("--sku is '\(sku)'; it is Basic, Standard or Premium.")
        }
        let family = vmSize.first?.uppercased() ?? ""
        guard sku.lowercased() == "premium" ? family == "P" : family == "C",
            Int(vmSize.dropFirst()).map({ 0...6 ~= $0 }) == true
        else { throw ValidationError("--vm-size is '\(vmSize)'; Basic and Standard have C0 to C6, Premium P1 to P5.") }
    }

    func run() throws {
        reporting { () throws(ResourceError) in
            try ResourceKind.redis.check(resource.name)
            let cache = try resourceStore().update { document throws(ResourceError) in
                let location = try document.location(resource.group, resource.location)
                if (try? document.find(.redis, resource.name)) != nil {
                    throw .exists("The Redis cache named \(resource.name) is already in use.")
                }
                let cache = NewResource.redis(
                    resource.name, group: resource.group, location: location, sku: sku.capitalizedWord, size: vmSize,
                    plainPort: enableNonSslPort)
                document.put(.redis, cache)
                return cache
            }
            output.show(cache)
        }
    }
}

extension String {
    /// The first letter large, the rest small.
    fileprivate var capitalizedWord: String { prefix(1).uppercased() + dropFirst().lowercased() }
}

struct RedisList: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "The Redis caches.")
    @OptionGroup var filter: GroupFilter
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in try filter.show(.redis, output) }
    }
}

struct RedisShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "One Redis cache.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var output: ResourceOutput

    func run() throws { showResource(.redis, resource, output) }
}

struct RedisDelete: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "delete", abstract: "Delete a Redis cache.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var confirmation: Confirmation

    func run() throws { deleteResource(.redis, resource, confirmation) }
}

private func redisKeys(_ cache: JSONValue) -> JSONValue {
    .record([
        "primaryKey": .optional(cache["_primaryKey"]?.string),
        "secondaryKey": .optional(cache["_secondaryKey"]?.string),
    ])
}

struct RedisKeys: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list-keys", abstract: "Both access keys.")
    @OptionGroup var resource: NamedResource
    @OptionGroup var output: ResourceOutput

    func run() throws {
        reporting { () throws(ResourceError) in
            output.show(redisKeys(try resourceStore().read().find(.redis, resource.name, in: resource.group)))
        }
    }
}

struct RedisRegenerateKeys: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "regenerate-keys", abstract: "Make one access key anew.")
    @OptionGroup var resource: NamedResource
    @Option(help: "Primary or Secondary.")
    var keyType: String
    @OptionGroup var output: ResourceOutput

    func validate() throws {
        guard ["primary", "secondary"].contains(keyType.lowercased()) else {
            throw ValidationError("--key-type is '\(keyType)'; it is Primary or Secondary.")
        }
    }

    func run() throws {
        reporting { () throws(ResourceError) in
            let cache = try resourceStore().update { document throws(ResourceError) in
                let cache = try document.find(.redis, resource.name, in: resource.group)
                    .setting("_\(keyType.lowercased())Key", .text(newKey(32)))
                document.put(.redis, cache)
                return cache
            }
            output.show(redisKeys(cache))
        }
    }
}
