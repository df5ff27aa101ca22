/// The broker in the host: when it runs, its ports, its queues.
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
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
    private let usualPort: Int
    private(set) var broker: Broker?
    private var listener: BrokerListener?
    /// Why it does not run; nil while it does, or was never needed.
    private(set) var failure: ServiceBusError?

    /// - Parameter usualPort: where it listens when the command line names no port.
    init(
        options: BrokerOptions, usualPort: Int?, address: String, appFolder: String, stateFolder: String, log: EventLog
    ) {
        self.usualPort = usualPort ?? BrokerListener.defaultPort
        self.options = options
        self.address = address
        self.appFolder = appFolder
        self.stateFolder = stateFolder
        self.log = log
    }

    /// The AMQP port; 0 while it does not run.
    var port: Int { listener?.port ?? 0 }

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
                    broker: broker, address: address, port: options.port ?? usualPort)
            } catch {
                broker.close()
                throw error
            }
            self.broker = broker
            failure = nil
            configure(broker)
        } catch {
            if failure != error { log(HostEvent(.log, .error, error.description, [("code", .text(error.code))])) }
            failure = error
        }
    }

    private func configure(_ broker: Broker) {
        guard let path = configurationPath else { return }
        let name = path.hasPrefix(appFolder + "/") ? String(path.dropFirst(appFolder.count + 1)) : path
        do throws(ConfigurationProblem) {
            let configuration = EmulatorConfiguration(file: try ConfigurationFile(path: path, displayName: name))
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

    /// Has a queue be there for a binding.
    func ensure(_ entity: String, needsSessions: Bool, isTrigger: Bool) {
        var entity = entity
        for part in ["/$transfer/$deadletterqueue", "/$deadletterqueue"] where entity.lowercased().hasSuffix(part) {
            entity = String(entity.dropLast(part.count))
        }
        guard let broker, EntityName.isValid(entity), !entity.lowercased().contains("/subscriptions/") else { return }
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
        broker.createQueue(entity, settings)
    }

    func stop() {
        listener?.close()
        broker?.close()
        broker = nil
    }
}
