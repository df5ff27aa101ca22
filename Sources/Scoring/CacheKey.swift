/// The name of a result: in memory a digest, in Redis a text a person can read.
public import EventLoops
internal import Invocations

/// What a result depends on, as a digest, and its name in Redis.
public struct CacheKey: Sendable {
    /// Digest of version tag, function, bundle and input.
    public let digest: SHA256Digest
    /// `andiron:2:Score:0123456789abcdef:<digest>`.
    public let name: [UInt8]
    let label: CacheKeyPrefix
}

/// The part of a key that is the same for all inputs of one function and one bundle.
struct CacheKeyPrefix {
    /// Raised when stored results change their form or meaning: older ones are then never asked for.
    static let versionTag = "2"

    let version: SHA256Digest
    let functionName: String
    private let seed: [UInt8]
    private let text: [UInt8]

    init(keyPrefix: String, functionName: String, version: SHA256Digest) {
        self.version = version
        self.functionName = functionName
        seed = SHA256Digest(of: Array("andiron result \(Self.versionTag)\n\(functionName)".utf8)).bytes + version.bytes
        text = Array("\(keyPrefix)\(Self.versionTag):\(functionName):\(version.description.prefix(16)):".utf8)
    }

    /// Keys of one function begin so, whatever its bundle.
    static func pattern(keyPrefix: String, functionName: String?) -> String {
        // The characters of a pattern that have a meaning are taken literally.
        let literal = (keyPrefix + "\(versionTag):" + (functionName.map { $0 + ":" } ?? ""))
            .map { "*?[]\\^-".contains($0) ? "\\\($0)" : "\($0)" }.joined()
        return literal + "*"
    }

    func digest(of input: [UInt8]) -> SHA256Digest { SHA256Digest(of: seed, input) }

    func key(_ digest: SHA256Digest) -> CacheKey {
        var name = text
        name.reserveCapacity(text.count + 64)
        digest.appendHexadecimal(to: &name)
        return CacheKey(digest: digest, name: name, label: self)
    }
}
