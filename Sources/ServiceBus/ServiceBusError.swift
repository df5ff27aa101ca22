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
    /// A binding asks a broker for what only a Service Bus has.
    case needsServiceBus(setting: String, feature: String)
    /// The configuration file of the broker.
    case configuration(file: String, reason: String)

    public var code: String {
        switch self {
        case .storeInUse: "AN8001"
        case .storeTooNew: "AN8002"
        case .store: "AN8003"
        case .port: "AN8004"
        case .connectionString: "AN8005"
        case .needsServiceBus: "AN8006"
        case .configuration: "AN8007"
        }
    }

    public var fault: Fault {
        switch self {
        case .connectionString, .needsServiceBus, .configuration: .user
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
        case .needsServiceBus(let setting, let feature): "the broker of the setting '\(setting)' has no \(feature)"
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
            "write \(embeddedConnectionString()) for the broker in the host, Azure's connection string, or amqp://user:password@host:port"
        case .needsServiceBus: "use the broker in the host or a Service Bus, or a plain queue"
        case .configuration: nil
        }
    }
}

/// What clients on this machine connect with to the broker in a host; without a port it is 5672, AMQP's own. The key
/// is the one that Microsoft's emulator documents; any other does as well while the broker demands none.
public func embeddedConnectionString(port: Int? = nil) -> String {
    let place = port.map { ":\($0)" } ?? ""
    return "Endpoint=sb://localhost\(place);SharedAccessKeyName=RootManageSharedAccessKey;"
        + "SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
}
