/// Azure's rules for names; a name that breaks one is told which.

/// The kinds of local resources.
public enum ResourceKind: String, Sendable, CaseIterable {
    case group, plan, storageAccount, registry, functionApp, redis, model

    /// What a message calls it.
    public var words: String {
        switch self {
        case .group: "Resource group"
        case .plan: "App Service plan"
        case .storageAccount: "Storage account"
        case .registry: "Registry"
        case .functionApp: "Function app"
        case .redis: "Redis cache"
        case .model: "Model"
        }
    }

    /// `Microsoft.…/…`, for ids.
    public var type: String {
        switch self {
        case .group: "Microsoft.Resources/resourceGroups"
        case .plan: "Microsoft.Web/serverfarms"
        case .storageAccount: "Microsoft.Storage/storageAccounts"
        case .registry: "Microsoft.ContainerRegistry/registries"
        case .functionApp: "Microsoft.Web/sites"
        case .redis: "Microsoft.Cache/Redis"
        case .model: "Microsoft.MachineLearningServices/workspaces/models"
        }
    }

    /// Checks a name.
    ///
    /// - Throws: AN9020 with the rule that is broken.
    public func check(_ name: String) throws(ResourceError) {
        let bytes = Array(name.utf8)
        func fail(_ rule: String) -> ResourceError { .name(name, rule: rule) }
        func isLetter(_ byte: UInt8) -> Bool { (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) }
        func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
        func isWord(_ byte: UInt8) -> Bool { isLetter(byte) || isDigit(byte) }
        let dot = UInt8(ascii: "."), dash = UInt8(ascii: "-"), underscore = UInt8(ascii: "_")
        switch self {
        case .registry:
            guard (5...50).contains(bytes.count), bytes.allSatisfy(isWord) else {
                throw fail(
                    "Registry names may contain only alpha numeric characters and must be between 5 and 50 characters")
            }
        case .storageAccount:
            guard (3...24).contains(bytes.count) else {
                throw fail("Storage account name must be between 3 and 24 characters in length")
            }
            guard bytes.allSatisfy({ isDigit($0) || (0x61...0x7A).contains($0) }) else {
                throw fail("Storage account name must use numbers and lower-case letters only")
            }
        case .redis:
            guard (1...63).contains(bytes.count) else { throw fail("the DNS name must be 1 to 63 characters long") }
            guard bytes.allSatisfy({ isWord($0) || $0 == dash }) else {
                throw fail("the DNS name may contain only letters, digits and hyphens")
            }
            guard let first = bytes.first, let last = bytes.last, isWord(first), isWord(last) else {
                throw fail("the DNS name must start and end with a letter or digit")
            }
            guard !name.contains("--") else { throw fail("the DNS name must not contain consecutive hyphens") }
        case .functionApp:
            guard (2...60).contains(bytes.count) else { throw fail("an app name must be 2 to 60 characters long") }
            guard bytes.allSatisfy({ isWord($0) || $0 == dash }), let first = bytes.first, let last = bytes.last,
                isWord(first), isWord(last)
            else { throw fail("an app name may contain letters, digits and hyphens, and not begin or end with one") }
        case .plan:
            guard (1...60).contains(bytes.count), bytes.allSatisfy({ isWord($0) || $0 == dash }) else {
                throw fail("a plan name must be 1 to 60 letters, digits and hyphens")
            }
        case .group:
            guard (1...90).contains(bytes.count) else {
                throw fail("a resource group name must be 1 to 90 characters long")
            }
            guard name.last != "." else { throw fail("a resource group name must not end with a period") }
            guard
                name.unicodeScalars.allSatisfy({
                    $0.properties.isAlphabetic || $0.properties.numericType != nil
                        || "-_.()".unicodeScalars.contains($0)
                })
            else {
                throw fail(
                    "a resource group name may contain letters, digits, underscores, parentheses, hyphens and periods")
            }
        case .model:
            guard let first = bytes.first, isWord(first), bytes.count <= 255,
                bytes.allSatisfy({ isWord($0) || $0 == dash || $0 == dot || $0 == underscore })
            else {
                throw fail(
                    "a model name begins with a letter or digit and has at most 255 letters, digits, '-', '.' and '_'")
            }
        }
    }
}
