/// What can go wrong with a Redis.
public import Diagnostics

/// An error about a Redis connection or command.
public enum RedisError: HostError {
    /// The connection string cannot be read.
    case connectionString(String, remedy: String?)
    /// There is no connection now.
    case unavailable(String)
    /// The server refused the password.
    case refused(String)
    /// The server did not answer in time.
    case timedOut(Duration)
    /// The server answered with an error.
    case server(String)
    /// The server sent something that is not Redis protocol.
    case protocolBroken(String)

    public var code: String {
        switch self {
        case .connectionString: "AN6001"
        case .unavailable: "AN6002"
        case .refused: "AN6003"
        case .timedOut: "AN6004"
        case .server: "AN6005"
        case .protocolBroken: "AN6006"
        }
    }

    public var fault: Fault {
        if case .connectionString = self { .user } else { .service }
    }

    public var message: String {
        switch self {
        case .connectionString(let text, _): text
        case .unavailable(let reason): "Redis is not reachable: \(reason)"
        case .refused(let reason): "Redis refused the credentials: \(reason)"
        case .timedOut(let limit): "Redis did not answer within \(limit)"
        case .server(let text): "Redis answered: \(text)"
        case .protocolBroken(let text): "what answers is no Redis: \(text)"
        }
    }

    public var remedy: String? {
        switch self {
        case .connectionString(_, let remedy): remedy
        case .refused: "check the password in RedisConnectionString"
        case .unavailable, .protocolBroken: "check host and port in RedisConnectionString"
        case .timedOut, .server: nil
        }
    }
}
