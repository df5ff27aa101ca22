/// What can go wrong with a Redis.
public import Diagnostics
public import EventLoops

/// An error about a Redis connection or command.
public enum RedisError: HostError {
    /// The connection string cannot be read.
    case connectionString(String, remedy: String?)
    /// There is no connection now.
    case unavailable(String)
    /// The server refused user or password.
    case refused(String)
    /// The server did not answer in time.
    case timedOut(Duration)
    /// The server answered with an error.
    case server(String)
    /// The server sent something that is not Redis protocol.
    case protocolBroken(String)
    /// TLS failed.
    case tls(TLSError)
    /// No node of the cluster serves the key's slot.
    case slotsMissing(Int)

    public var code: String {
        switch self {
        case .connectionString: "AN6001"
        case .unavailable: "AN6002"
        case .refused: "AN6003"
        case .timedOut: "AN6004"
        case .server: "AN6005"
        case .protocolBroken: "AN6006"
        case .tls: "AN6007"
        case .slotsMissing: "AN6008"
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
        case .tls(let error): "no TLS connection to Redis: \(error.message)"
        case .slotsMissing(let count):
            "the Redis cluster has \(count) of \(RedisSlotMap.slotCount) slots that no node serves"
        }
    }

    public var remedy: String? {
        switch self {
        case .connectionString(_, let remedy): remedy
        case .refused: "check user and password in RedisConnectionString"
        case .unavailable: "check host and port in RedisConnectionString; port 6380 needs ssl=True"
        case .protocolBroken: "check host, port and ssl in RedisConnectionString"
        case .tls(let error):
            switch error {
            case .unknownAuthority:
                "name the authority's certificate by SSL_CERT_FILE or sslCaFile=…; for a self-signed one on this machine sslVerify=False"
            case .notTLS, .closed, .timedOut: "check the port (TLS is usually on 6380), or ssl=False"
            default: error.remedy
            }
        case .slotsMissing: "redis-cli --cluster fix, on the cluster"
        case .timedOut, .server: nil
        }
    }
}
