/// The rule for names of an Azure Cache for Redis.

/// What is wrong with a cache name.
public enum RedisCacheName {
    /// The domain under which Azure gives each cache its host name.
    public static let domain = ".redis.cache.windows.net"

    /// The rule that `name` breaks, in words; nil for a good name.
    ///
    /// Source: Azure's naming rules for `Microsoft.Cache/Redis`: 1–63 characters, letters, digits and hyphens; it
    /// starts and ends with a letter or digit, and no two hyphens follow each other.
    public static func brokenRule(_ name: String) -> String? {
        if name.isEmpty { return "a cache name has at least 1 character" }
        let allowed = name.unicodeScalars.allSatisfy { scalar in
            scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == "-")
        }
        if !allowed { return "a cache name has only letters, digits and hyphens" }
        if name.utf8.count > 63 { return "a cache name has at most 63 characters, this one has \(name.utf8.count)" }
        if name.hasPrefix("-") || name.hasSuffix("-") { return "a cache name does not start or end with a hyphen" }
        if name.contains("--") { return "a cache name has no two hyphens in a row" }
        return nil
    }
}
