/// The client of outside brokers: what it does when the other end falls silent, and how it tries again.
import AMQP
import EventLoops
import Glibc
import HostTestSupport
@testable import ServiceBus
import Testing

/// A broker on a thread of its own that opens connections and then says nothing, or only that it is alive.
private final class SilentBroker: Sendable {
    let port: Int

    init(beats: Bool) throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, length) == 0 && listen(listener, 8) == 0 && getsockname(listener, $0, &length) == 0
            }
        }
        try #require(isBound)
        port = Int(UInt16(bigEndian: address.sin_port))
        let thread = BrokerThread {
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else { return }
                Self.serve(connection, beats: beats)
                close(connection)
            }
        }
        thread.start()
    }

    private static func serve(_ connection: Int32, beats: Bool) {
        let engine = AMQPConnection(role: .server(mechanisms: ["ANONYMOUS"]), open: AMQPOpen(containerID: "silent"))
        let doorkeeper = Doorkeeper()
        engine.handler = doorkeeper
        defer { withExtendedLifetime(doorkeeper) {} }
        var wait = timeval(tv_sec: 0, tv_usec: 100_000)
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(connection, &buffer, buffer.count, 0)
            if count == 0 || (count < 0 && errno != EAGAIN) { return }
            if count > 0 { buffer[..<count].withUnsafeBytes { engine.receive($0) } }
            if beats, engine.remoteOpen != nil { engine.sendEmptyFrame() }
            let output = engine.takeOutput()
            _ = send(connection, output, output.count, Int32(MSG_NOSIGNAL))
        }
    }
}

/// Lets everybody in.
private final class Doorkeeper: AMQPConnectionHandler {
    func authenticate(mechanism: String, response: [UInt8]) -> Bool { true }
    func connectionDidOpen(_ remote: AMQPOpen) {}
    func connectionDidAttach(_ link: AMQPLink) {}
    func connectionDidClose(_ error: AMQPError?) {}
    func connectionHasOutput() {}
}

/// A detached thread that runs a closure.
private final class BrokerThread {
    private let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }

    func start() {
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<BrokerThread>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
        pthread_detach(thread)
    }
}

@EventLoop
private final class User: BusUser {
    let entity = "q"
    var opened = 0
    var closed: [AMQPError] = []
    func busDidOpen(_ session: AMQPSession) { opened += 1 }
    func busDidClose(_ error: AMQPError) { closed.append(error) }
}

@Suite struct BusClientTests {
    @Test(arguments: [false, true]) func `a broker that falls silent is gone, one that beats is not`(beats: Bool)
        async throws
    {
        let broker = try SilentBroker(beats: beats)
        let (opened, closed) = try await onTheLoop {
            let address = try BrokerAddress("amqp://127.0.0.1:\(broker.port)", setting: "test")
            let client = BusClient(address: address) { throw AMQPError("amqp:internal-error", "no TLS") }
            client.idleTimeout = .milliseconds(800)
            let user = User()
            client.add(user)
            // Other tests may keep the loop for seconds; time counts from the opening.
            while user.opened == 0 { await sleep(for: .milliseconds(20)) }
            for _ in 0..<(beats ? 100 : 3000) where user.closed.isEmpty { await sleep(for: .milliseconds(20)) }
            let result = (user.opened, user.closed)
            client.close()
            return result
        }
        #expect(opened == 1)
        #expect(closed.map(\.text) == (beats ? [] : ["the broker has been silent for 0.8 s"]))
    }

    @Test func `pauses double up to the longest, or are all alike`() {
        var policy = BusRetryPolicy()
        policy.maxDelay = .seconds(3)
        #expect(
            (1...5).map { policy.delay(beforeRetry: $0) } == [800, 1600, 3000, 3000, 3000].map { .milliseconds($0) })
        #expect(policy.delay(beforeRetry: 100) == .seconds(3))
        policy.isExponential = false
        #expect((1...3).map { policy.delay(beforeRetry: $0) } == [800, 800, 800].map { .milliseconds($0) })
    }

    @Test(arguments: [
        ("amqp:connection:forced", true), ("com.microsoft:server-busy", true), ("amqp:link:detach-forced", true),
        ("amqp:not-found", false), ("amqp:link:message-size-exceeded", false), ("amqp:unauthorized-access", false),
        ("amqp:resource-limit-exceeded", false),
    ]) func `what a broker refuses for what it is, it refuses again`(condition: String, isTransient: Bool) {
        #expect(BusRetryPolicy.isTransient(AMQPError(condition, "")) == isTransient)
    }
}
