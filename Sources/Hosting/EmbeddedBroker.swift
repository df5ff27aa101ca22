/// The broker in the host: when it runs, its ports, its queues.
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import Glibc
internal import ServiceBus

/// What the command line decides about the broker.
public struct BrokerOptions: Sendable {
    /// 0 is any free port; nil is 5672, and only when something needs the broker.
    public var port: Int?
    /// A file of Microsoft's emulator; nil looks for Config.json in the app.
    public var configurationFile: String?
    /// Nothing is written to disk.
    public var isInMemory = false

    public init() {}
}

/// Starts the broker once something needs it, and keeps it until the host ends.
@EventLoop
final class EmbeddedBroker {
    private let options: BrokerOptions
    private let address: String
    private let appFolder: String
    private let stateFolder: String
    private let log: EventLog
    private let settings: AppSettings
    private var secureListener: BrokerListener?
    private var administration: AdministrationAPI?
    private(set) var broker: Broker?
    private var listener: BrokerListener?
    /// Why it does not run; nil while it does, or was never needed.
    private(set) var failure: ServiceBusError?

    init(
        options: BrokerOptions, settings: AppSettings, address: String, appFolder: String, stateFolder: String,
        log: EventLog
    ) {
        self.settings = settings
        self.options = options
        self.address = address
        self.appFolder = appFolder
        self.stateFolder = stateFolder
        self.log = log
    }

    /// The AMQP port it is to have; 0 is any.
    var wantedPort: Int {
        options.port ?? settings["ANDIRON_SERVICEBUS_PORT"].flatMap { Int($0) } ?? BrokerListener.defaultPort
    }

    /// The AMQP port; 0 while it does not run.
    var port: Int { listener?.port ?? 0 }

    /// The AMQP port with TLS; 0 while there is none.
    var securePort: Int { secureListener?.port ?? 0 }

    /// The port of administration and health; 0 while there is none.
    var administrationPort: Int { administration?.port ?? 0 }

    private var configurationPath: String? {
        if let file = options.configurationFile { return file }
        let path = appFolder + "/Config.json"
        return access(path, R_OK) == 0 ? path : nil
    }

    /// Whether the user asked for it, functions aside.
    var isAskedFor: Bool { options.port != nil || configurationPath != nil }

    /// Starts it, unless it runs; a failure is logged and kept.
    func start() {
        guard broker == nil else { return }
        do throws(ServiceBusError) {
            var folder: String?
            if !options.isInMemory {
                let path = stateFolder + "/servicebus"
                do throws(SystemError) {
                    try createFolders(path, mode: 0o700)
                } catch {
                    throw .store(path: path, reason: error.message)
                }
                folder = path
            }
            let broker = try Broker(folder: folder, log: log)
            do throws(ServiceBusError) {
                listener = try BrokerListener(
                    broker: broker, address: address, port: wantedPort)
                try listenSecurely(broker)
            } catch {
                listener?.close()
                listener = nil
                broker.close()
                throw error
            }
            broker.keys = Self.keys(settings["ANDIRON_SERVICEBUS_KEYS"])
            self.broker = broker
            failure = nil
            configure(broker)
            administer(broker)
        } catch {
            if failure != error { log(HostEvent(.log, .error, error.description, [("code", .text(error.code))])) }
            failure = error
        }
    }

    /// Opens the port with TLS, when a certificate is set.
    private func listenSecurely(_ broker: Broker) throws(ServiceBusError) {
        guard let chain = settings["ANDIRON_SERVICEBUS_CERT_FILE"] else { return }
        let port = settings["ANDIRON_SERVICEBUS_TLS_PORT"].flatMap { Int($0) } ?? BrokerListener.defaultSecurePort
        do throws(TLSError) {
            let context = try TLSContext(
                serverCertificateFile: chain, keyFile: settings["ANDIRON_SERVICEBUS_KEY_FILE"] ?? chain)
            secureListener = nil
            let made = Result { () throws(ServiceBusError) in
                try BrokerListener(broker: broker, address: address, port: port, tls: context)
            }
            switch made {
            case .success(let listener): secureListener = listener
            case .failure(let error): throw TLSError.handshake(peer: "port \(port)", reason: error.message)
            }
        } catch {
            throw .port(name: "TLS", reason: error.message, setting: "ANDIRON_SERVICEBUS_TLS_PORT")
        }
    }

    /// Opens the administration's port; without it the broker runs all the same.
    private func administer(_ broker: Broker) {
        let usual = wantedPort == 0 ? 0 : AdministrationAPI.defaultPort
        let port = settings["ANDIRON_SERVICEBUS_ADMIN_PORT"].flatMap { Int($0) } ?? usual
        do throws(ServiceBusError) {
            administration = try AdministrationAPI(broker: broker, address: address, port: port)
        } catch {
            log(HostEvent(.log, .warning, error.description, [("code", .text(error.code))]))
        }
    }

    /// `name=key;name=key`; with none, everyone is let in.
    private static func keys(_ text: String?) -> [String: String] {
        var keys: [String: String] = [:]
        for part in (text ?? "").split(separator: ";") {
            let pair = part.split(separator: "=", maxSplits: 1)
            if pair.count == 2 { keys[String(pair[0])] = String(pair[1]) }
        }
        return keys
    }

    private func configure(_ broker: Broker) {
        guard let path = configurationPath else { return }
        let name = path.hasPrefix(appFolder + "/") ? String(path.dropFirst(appFolder.count + 1)) : path
        do throws(ConfigurationProblem) {
            let file = try ConfigurationFile(path: path, displayName: name, allowsTrailingCommas: true)
            let configuration = EmulatorConfiguration(file: file)
            for problem in configuration.problems {
                log(
                    HostEvent(
                        .configError, problem.isWarning ? .warning : .error, problem.text,
                        [("code", .text(problem.code))]))
            }
            broker.apply(configuration)
        } catch {
            log(HostEvent(.configError, .error, error.text, [("code", .text(error.code))]))
        }
    }

    /// Has a queue be there for a binding, or a topic, or a subscription with its topic.
    func ensure(_ entity: String, needsSessions: Bool, isTrigger: Bool, isTopic: Bool = false) {
        var entity = entity
        for part in ["/$transfer/$deadletterqueue", "/$deadletterqueue"] where entity.lowercased().hasSuffix(part) {
            entity = String(entity.dropLast(part.count))
        }
        guard let broker, EntityName.isValid(entity) else { return }
        if let queue = broker.queue(named: entity) {
            guard isTrigger, queue.settings.requiresSession != needsSessions else { return }
            log.log(
                .error,
                "queue '\(entity)' \(queue.settings.requiresSession ? "requires" : "has no") sessions; isSessionsEnabled must be \(queue.settings.requiresSession)"
            )
            return
        }
        var settings = QueueSettings()
        settings.requiresSession = needsSessions
        broker.create(entity, settings, isTopic: isTopic)
    }

    func stop() {
        listener?.close()
        secureListener?.close()
        administration?.close()
        broker?.close()
        broker = nil
    }
}
