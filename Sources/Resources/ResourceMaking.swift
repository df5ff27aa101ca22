/// Resources as they are when they have just been created: the members Azure's command line prints.
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc
public import JSONText

/// Random bytes of the kernel.
public func randomBytes(_ count: Int) -> [UInt8] {
    var generator = SystemRandomNumberGenerator()
    return (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
}

/// A password of 32 characters, letters, digits, `+` and `/`.
public func newPassword() -> String {
    let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    return String(decoding: randomBytes(32).map { letters[Int($0) & 63] }, as: UTF8.self)
}

/// A base64 key of `count` bytes.
public func newKey(_ count: Int) -> String {
    let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    let bytes = randomBytes(count)
    var text: [UInt8] = []
    for start in stride(from: 0, to: count, by: 3) {
        var word = 0
        for index in 0..<3 { word = word << 8 | (start + index < count ? Int(bytes[start + index]) : 0) }
        for index in 0..<4 {
            text.append(start + index <= count ? letters[word >> (18 - 6 * index) & 63] : UInt8(ascii: "="))
        }
    }
    return String(decoding: text, as: UTF8.self)
}

/// `/subscriptions/…`: there is one subscription, this machine.
public func resourceID(_ kind: ResourceKind, _ name: String, group: String) -> String {
    let root = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/\(group)"
    return kind == .group ? root : "\(root)/providers/\(kind.type)/\(name)"
}

extension ResourceDocument {
    /// A group's location, or what was asked for.
    ///
    /// - Throws: AN9021 when the group does not exist.
    public func location(_ group: String, _ asked: String?) throws(ResourceError) -> String {
        let found = try find(.group, group)
        return asked ?? found["location"]?.string ?? "local"
    }
}

/// Makers, one per kind.
public enum NewResource {
    public static func group(_ name: String, location: String) -> JSONValue {
        [
            "id": .text(resourceID(.group, name, group: name)), "location": .text(location), "managedBy": .null,
            "name": .text(name), "properties": .record(["provisioningState": .text("Succeeded")]), "tags": .null,
            "type": .text(ResourceKind.group.type),
        ]
    }

    public static func plan(_ name: String, group: String, location: String, sku: String, isLinux: Bool, workers: Int)
        -> JSONValue
    {
        let tiers: [Character: String] = [
            "F": "Free", "D": "Shared", "B": "Basic", "S": "Standard", "P": "PremiumV2", "E": "ElasticPremium",
        ]
        return [
            "elasticScaleEnabled": .flag(false), "freeOfferExpirationTime": .null, "geoRegion": .text(location),
            "hostingEnvironmentProfile": .null, "hyperV": .flag(false),
            "id": .text(resourceID(.plan, name, group: group)), "isSpot": .flag(false), "isXenon": .flag(false),
            "kind": .text(isLinux ? "linux" : "app"), "location": .text(location),
            "maximumElasticWorkerCount": .number(1), "name": .text(name), "numberOfSites": .number(0),
            "numberOfWorkers": .number(workers), "perSiteScaling": .flag(false),
            "provisioningState": .text("Succeeded"), "reserved": .flag(isLinux), "resourceGroup": .text(group),
            "sku": .record([
                "capacity": .number(workers), "family": .text(String(sku.prefix(1))), "name": .text(sku),
                "size": .text(sku), "tier": .text(sku.first.flatMap { tiers[$0] } ?? "Basic"),
            ]), "status": .text("Ready"), "subscription": .text("00000000-0000-0000-0000-000000000000"),
            "tags": .null, "targetWorkerCount": .number(0), "targetWorkerSizeId": .number(0),
            "type": .text(ResourceKind.plan.type), "workerTierName": .null, "zoneRedundant": .flag(false),
        ]
    }

    public static func storageAccount(_ name: String, group: String, location: String, sku: String) -> JSONValue {
        func endpoint(_ port: Int) -> JSONValue { .text("http://127.0.0.1:\(port)/\(name)") }
        return [
            "accessTier": .text("Hot"), "allowBlobPublicAccess": .flag(false),
            "creationTime": .text(timeText()), "enableHttpsTrafficOnly": .flag(false),
            "id": .text(resourceID(.storageAccount, name, group: group)), "identity": .null,
            "kind": .text("StorageV2"), "location": .text(location), "minimumTlsVersion": .text("TLS1_0"),
            "name": .text(name),
            "primaryEndpoints": .record([
                "blob": endpoint(10000), "file": endpoint(10003), "queue": endpoint(10001), "table": endpoint(10002),
            ]), "primaryLocation": .text(location), "provisioningState": .text("Succeeded"),
            "resourceGroup": .text(group), "secondaryLocation": .null,
            "sku": .record(["name": .text(sku), "tier": .text(String(sku.prefix { $0 != "_" }))]),
            "statusOfPrimary": .text("available"), "tags": .record([:]),
            "type": .text(ResourceKind.storageAccount.type), "_key1": .text(newKey(64)), "_key2": .text(newKey(64)),
        ]
    }

    /// `{"connectionString": …}` of an account, members in Azure's order.
    public static func connectionString(of account: JSONValue) -> String {
        let endpoints = account["primaryEndpoints"]
        func endpoint(_ name: String) -> String { endpoints?[name]?.string ?? "" }
        return
            "DefaultEndpointsProtocol=http;EndpointSuffix=core.windows.net;AccountName=\(account["name"]?.string ?? "")"
            + ";AccountKey=\(account["_key1"]?.string ?? "");BlobEndpoint=\(endpoint("blob"));FileEndpoint=\(endpoint("file"))"
            + ";QueueEndpoint=\(endpoint("queue"));TableEndpoint=\(endpoint("table"))"
    }

    public static func registry(
        _ name: String, group: String, location: String, sku: String, adminEnabled: Bool, loginServer: String
    ) -> JSONValue {
        [
            "adminUserEnabled": .flag(adminEnabled), "anonymousPullEnabled": .flag(false),
            "creationDate": .text(timeText()), "dataEndpointEnabled": .flag(false),
            "dataEndpointHostNames": .list([]), "id": .text(resourceID(.registry, name, group: group)),
            "identity": .null, "location": .text(location), "loginServer": .text(loginServer), "name": .text(name),
            "privateEndpointConnections": .list([]), "provisioningState": .text("Succeeded"),
            "publicNetworkAccess": .text("Enabled"), "resourceGroup": .text(group),
            "sku": .record(["name": .text(sku), "tier": .text(sku)]), "status": .null, "tags": .record([:]),
            "type": .text(ResourceKind.registry.type), "zoneRedundancy": .text("Disabled"),
            "_password": .text(newPassword()),
            "_password2": .text(newPassword()),
        ]
    }

    public static func functionApp(
        _ name: String, group: String, location: String, plan: String?, image: String?, folder: String
    ) -> JSONValue {
        let fx = image.map(linuxFxVersion) ?? ""
        // Where andiron start listens when nothing else is said.
        let host = "localhost:7071"
        return [
            "availabilityState": .text("Normal"), "clientAffinityEnabled": .flag(false),
            "defaultHostName": .text(host), "enabled": .flag(true), "enabledHostNames": .list([.text(host)]),
            "hostNames": .list([.text(host)]), "httpsOnly": .flag(false),
            "id": .text(resourceID(.functionApp, name, group: group)),
            "kind": .text(image == nil ? "functionapp,linux" : "functionapp,linux,container"),
            "lastModifiedTimeUtc": .text(timeText()), "location": .text(location), "name": .text(name),
            "outboundIpAddresses": .text("127.0.0.1"), "repositorySiteName": .text(name), "reserved": .flag(true),
            "resourceGroup": .text(group),
            "serverFarmId": .optional(plan.map { resourceID(.plan, $0, group: group) }),
            "siteConfig": .record(["linuxFxVersion": .text(fx)]), "state": .text("Running"), "tags": .null,
            "type": .text(ResourceKind.functionApp.type), "usageState": .text("Normal"), "folder": .text(folder),
            "_slotSettings": .list([]),
        ]
    }

    public static func redis(
        _ name: String, group: String, location: String, sku: String, size: String, plainPort: Bool
    )
        -> JSONValue
    {
        [
            "accessKeys": .null, "enableNonSslPort": .flag(plainPort),
            "hostName": .text("\(name).redis.cache.windows.net"),
            "id": .text(resourceID(.redis, name, group: group)), "instances": .list([]), "linkedServers": .list([]),
            "location": .text(location), "minimumTlsVersion": .null, "name": .text(name), "port": .number(6379),
            "provisioningState": .text("Succeeded"), "publicNetworkAccess": .text("Enabled"),
            "redisConfiguration": .record([:]), "redisVersion": .text("6.0"), "resourceGroup": .text(group),
            "shardCount": .null,
            "sku": .record([
                "capacity": .number(size.dropFirst().isEmpty ? 1 : Int(size.dropFirst()) ?? 1),
                "family": .text(String(size.prefix(1)).uppercased()), "name": .text(sku),
            ]), "sslPort": .number(6380), "tags": .record([:]), "type": .text(ResourceKind.redis.type),
            "_primaryKey": .text(newKey(32)), "_secondaryKey": .text(newKey(32)),
        ]
    }
}

/// Now, as Azure's command line prints times: `2019-08-27T19:55:24+00:00`.
private func timeText() -> String {
    var now = time(nil)
    var parts = tm()
    gmtime_r(&now, &parts)
    var buffer = [CChar](repeating: 0, count: 40)
    let count = strftime(&buffer, buffer.count, "%Y-%m-%dT%H:%M:%S+00:00", &parts)
    return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// `DOCKER|registry/image:tag`: the scheme taken off, the prefix put on, as Azure's command line does.
public func linuxFxVersion(_ image: String) -> String {
    var text = image
    let lower = text.lowercased()
    for scheme in ["https://", "http://"] where lower.hasPrefix(scheme) {
        text = String(text.dropFirst(scheme.count)).lowercased()
    }
    if text.allSatisfy(\.isWhitespace) { return " " }
    return text.lowercased().hasPrefix("docker|") ? text : "DOCKER|\(text)"
}
