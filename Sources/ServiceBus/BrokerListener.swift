/// The broker's port: accepts streams and begins a connection on each.
internal import Diagnostics
public import EventLoops

/// Listens for AMQP.
@EventLoop
public final class BrokerListener {
    private let broker: Broker
    private var listener: StreamListener?

    /// Service Bus's port without TLS, where its emulator listens too.
    public static let defaultPort = 5672

    /// Service Bus's port with TLS.
    public static let defaultSecurePort = 5671

    /// - Parameter tls: the server's side of TLS, for the port that speaks it.
    /// - Throws: ``ServiceBusError`` when the port cannot be had.
    public init(
        broker: Broker, address: String, port: Int, tls: TLSContext? = nil
    ) throws(ServiceBusError) {
        self.broker = broker
        do throws(SystemError) {
            listener = try StreamListener(address: address, port: port) { stream in
                guard let tls else { return broker.accept(stream) }
                loopTask {
                    // A peer whose handshake fails is gone; there is nobody to tell.
                    guard (try? await stream.startTLS(tls, peer: "a client")) != nil else { return }
                    broker.accept(stream)
                }
            }
        } catch {
            throw .port(name: "AMQP", reason: error.message, setting: "--servicebus-port")
        }
    }

    /// The bound port.
    public var port: Int { listener?.port ?? 0 }

    /// Stops listening.
    public func close() { listener?.close() }
}

extension Broker {
    /// Begins a connection on a stream.
    public func accept(_ stream: ByteStream) {
        let connection = BrokerConnection(broker: self, stream: stream)
        connections[ObjectIdentifier(connection)] = connection
        connection.start()
    }
}
