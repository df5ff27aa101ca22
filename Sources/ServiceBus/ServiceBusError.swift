/// What goes wrong with the broker's own files and ports; what peers are told is ``AMQPError``.
public import Diagnostics

/// An error of the broker or of a connection to one.
public enum ServiceBusError: HostError, Equatable {
    /// Another process holds the store.
    case storeInUse(folder: String)
    /// The store was written by a newer version.
    case storeTooNew(folder: String, version: UInt32)
    /// A system call on the store failed.
    case store(path: String, reason: String)
    /// The port cannot be bound.
    case port(name: String, reason: String, setting: String)
    /// A connection setting that cannot be used.
    case connectionString(setting: String, reason: String)
    /// A function's binding names no queue, or a wrong one.
    case binding(function: String, reason: String)
    /// The configuration file of the broker.
    case configuration(file: String, reason: String)

    public var code: String {
        switch self {
        case .storeInUse: "AN8001"
        case .storeTooNew: "AN8002"
        case .store: "AN8003"
        case .port: "AN8004"
        case .connectionString: "AN8005"
        case .binding: "AN8006"
        case .configuration: "AN8007"
        }
    }

    public var fault: Fault {
        switch self {
        case .connectionString, .binding, .configuration: .user
        default: .service
        }
    }

    public var message: String {
        switch self {
        case .storeInUse(let folder): "another host has the message store '\(folder)' open"
        case .storeTooNew(let folder, let version):
            "the message store '\(folder)' has format \(version), newer than this program's"
        case .store(let path, let reason): "the message store '\(path)' fails: \(reason)"
        case .port(let name, let reason, _): "the broker's \(name) port cannot be opened: \(reason)"
        case .connectionString(let setting, let reason): "the setting '\(setting)' \(reason)"
        case .binding(let function, let reason): "function '\(function)': \(reason)"
        case .configuration(let file, let reason): "\(file): \(reason)"
        }
    }

    public var remedy: String? {
        switch self {
        case .storeInUse: "stop the other host, or start this one with another --state folder"
        case .storeTooNew: "run the version that wrote it, or move the folder away"
        case .store: "free space or correct the permissions; acknowledged messages are safe"
        case .port(_, _, let setting): "stop what uses the port, or choose another with \(setting)"
        case .connectionString:
            "write Endpoint=sb://localhost;SharedAccessKeyName=…;SharedAccessKey=…;UseDevelopmentEmulator=true; or amqp://user:password@host:port"
        case .binding, .configuration: nil
        }
    }
}
