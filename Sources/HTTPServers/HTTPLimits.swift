/// Everything an HTTP connection may take, with its default.
public import HTTPMessages

/// Limits of a listener.
public struct HTTPLimits: Sendable {
    /// Head size, request line size, field count.
    public var head = HeadLimits()
    /// Bytes of a request body; one more is answered 413. The Functions host's default.
    public var bodyByteCount = 104_857_600
    /// How long a head may take from its first byte; then 408.
    public var headTimeout = Duration.seconds(10)
    /// How long a body may make no progress; then 408.
    public var bodyTimeout = Duration.seconds(30)
    /// How long a connection may sit idle between requests.
    public var idleTimeout = Duration.seconds(75)
    /// How long a client may take nothing of a response; then it is cut off.
    public var writeTimeout = Duration.seconds(60)
    /// Connections at one time; one more is answered 503 and closed.
    public var connectionCount = 20_000
    /// Unsent response bytes past which no further request is read from a connection.
    public var outputByteCount = 1 << 20

    public init() {}
}
