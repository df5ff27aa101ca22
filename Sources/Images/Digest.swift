/// `sha256:` and 64 digits: what everything in a registry is called.
internal import EventLoops

/// The digest of a blob.
public struct Digest: Hashable, Sendable, CustomStringConvertible {
    /// 64 lower-case hexadecimal digits.
    public let hex: String

    /// A digest written out, `sha256:…`; nil for another algorithm or another length.
    public init?(_ text: some StringProtocol) {
        guard text.hasPrefix("sha256:") else { return nil }
        self.init(hex: String(text.dropFirst("sha256:".count)))
    }

    /// The digits alone; nil when they are not 64 lower-case ones.
    public init?(hex: String) {
        guard hex.utf8.count == 64,
            hex.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
        else { return nil }
        self.hex = hex
    }

    /// The digest of bytes.
    public init(of bytes: [UInt8]) { hex = "\(SHA256Digest(of: bytes))" }

    init(_ hasher: SHA256Hasher) { hex = hasher.hexadecimal() }

    public var description: String { "sha256:\(hex)" }
    /// The first twelve digits, as Docker shows them.
    public var short: String { String(hex.prefix(12)) }
}
