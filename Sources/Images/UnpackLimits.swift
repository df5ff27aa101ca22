/// How much a layer may be.

/// Limits of one layer; each is an error of its own when it is passed.
public struct UnpackLimits: Sendable {
    /// Entries.
    public var entryCount = 1_000_000
    /// Components of a path.
    public var depth = 256
    /// Bytes of one component.
    public var nameByteCount = 255
    /// Bytes of a path, and of what a link says.
    public var pathByteCount = 4096
    /// Bytes of one file, holes included.
    public var fileByteCount = 8 << 30
    /// Bytes of the whole layer, unpacked.
    public var totalByteCount = 16 << 30
    /// How many times its compressed size a layer may have, unpacked.
    public var ratio = 200
    /// Bytes that are unpacked without looking at the ratio.
    public var ratioFreeByteCount = 100 << 20

    public init() {}
}
