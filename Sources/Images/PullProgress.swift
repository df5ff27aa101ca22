/// What can be watched while an image is pulled.

/// Where one layer is.
public enum LayerState: String, Sendable {
    case waiting, downloading, unpacking, done, cached, skipped
}

/// One layer's progress.
public struct LayerProgress: Sendable {
    public let digest: Digest
    public let role: LayerRole?
    public var state: LayerState
    public var received: Int
    public let size: Int
    /// When its first byte was asked for, on the monotonic clock.
    public var startedAt: UInt64 = 0
}

/// What a pull tells, in the order it happens.
public enum PullEvent: Sendable {
    /// `resolve`, `manifest`, `pull`, `unpack`.
    case phase(String)
    case layers([LayerProgress])
    /// One layer has moved; told often.
    case layer(Int, LayerProgress)
    case digest(Digest)
}
