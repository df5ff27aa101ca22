/// A load generator for AMQP 1.0 brokers, on the project's own client engine: the same for every broker it measures.
///
///     amqp-load URL send COUNT [--window N] [--size BYTES]
///     amqp-load URL receive COUNT [--window N]
///     amqp-load URL both COUNT [--window N] [--size BYTES]     a sender and a receiver at once
///     amqp-load URL idle COUNT                                  that many connections, until standard input ends
///
/// URL: amqp://[user:password@]host:port/address. Prints one JSON object: messages, seconds, and the median time of
/// one message in microseconds.
import AMQP
import EventLoops
import Glibc

struct Arguments {
    var host = "127.0.0.1"
    var port = 5672
    var user = ""
    var password = ""
    var address = ""
    var mode = ""
    var count = 0
    var window = 100
    var size = 256

    init?(_ words: [String]) {
        guard words.count >= 4, words[1].hasPrefix("amqp://"), let count = Int(words[3]) else { return nil }
        var rest = words[1].dropFirst(7)
        if let at = rest.firstIndex(of: "@") {
            let parts = rest[..<at].split(separator: ":")
            user = String(parts.first ?? "")
            password = String(parts.last ?? "")
            rest = rest[rest.index(after: at)...]
        }
        let halves = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        let place = halves[0].split(separator: ":")
        host = String(place[0])
        port = place.count > 1 ? Int(place[1]) ?? 5672 : 5672
        address = halves.count > 1 ? String(halves[1]) : ""
        mode = words[2]
        self.count = count
        var index = 4
        while index + 1 < words.count {
            if words[index] == "--window" { window = Int(words[index + 1]) ?? window }
            if words[index] == "--size" { size = Int(words[index + 1]) ?? size }
            index += 2
        }
    }
}

/// One connection that sends, receives, or idles.
@EventLoop
final class Load {
    enum Role { case sender, receiver, idle }

    let arguments: Arguments
    let role: Role
    let done: @EventLoop () -> Void
    private let stream: ByteStream
    private let engine: AMQPConnection
    private var flush: TurnEndAction?
    private var link: AMQPLink?
    private var body: [UInt8] = []
    private(set) var begun = 0
    private(set) var finished = 0
    private var starts: [UInt64] = []
    private(set) var spans: [UInt64] = []
    private(set) var startedAt: UInt64 = 0
    private(set) var endedAt: UInt64 = 0
    private var credit = 0

    init(_ arguments: Arguments, _ role: Role, _ stream: ByteStream, done: @escaping @EventLoop () -> Void) {
        self.arguments = arguments
        self.role = role
        self.stream = stream
        self.done = done
        let mechanism = arguments.user.isEmpty ? "ANONYMOUS" : "PLAIN"
        let response = [0] + Array(arguments.user.utf8) + [0] + Array(arguments.password.utf8)
        engine = AMQPConnection(
            role: .client(mechanism: mechanism, response: response),
            open: AMQPOpen(containerID: "load", hostname: arguments.host))
        var message = AMQPMessage(body: .data([UInt8](repeating: 0x78, count: arguments.size)))
        message.header.durable = true
        body = message.encoded
        flush = TurnEndAction { [weak self] in self?.write() }
        engine.handler = self
    }

    func start() {
        stream.startReading(to: self)
        engine.start()
    }

    private func write() {
        guard engine.hasOutput else { return }
        stream.write(engine.takeOutput())
    }

    private func pump() {
        guard let link, role == .sender else { return }
        if startedAt == 0, link.credit > 0 { startedAt = monotonicNanoseconds() }
        while begun < arguments.count, begun - finished < arguments.window, link.canSend {
            let number = UInt32(truncatingIfNeeded: begun)
            starts.append(monotonicNanoseconds())
            begun += 1
            link.send(tag: AMQPTag(counter: number), token: AMQPUUID(high: 0, low: UInt64(number))) {
                $0.bytes.append(contentsOf: body)
            }
        }
    }

    private func finish() {
        endedAt = monotonicNanoseconds()
        done()
    }

    func close() { stream.close() }
}

extension Load: @EventLoop AMQPConnectionHandler {
    func authenticate(mechanism: String, response: [UInt8]) -> Bool { false }
    func connectionDidAttach(_ link: AMQPLink) {}
    func connectionHasOutput() { flush?.schedule() }

    func connectionDidOpen(_ remote: AMQPOpen) {
        let session = engine.beginSession()
        switch role {
        case .sender:
            link = session.attachSender(
                name: "load-sender", target: .target(arguments.address, durable: true), handler: self)
        case .receiver:
            var source = AMQPTerminus.source(arguments.address)
            source.fields[1] = .uint(2)
            link = session.attachReceiver(
                name: "load-receiver", source: source, settlesSecond: !isRabbit, handler: self)
        case .idle: done()
        }
    }

    func connectionDidClose(_ error: AMQPError?) {
        FileHandleError.say("connection closed: \(error.map { "\($0)" } ?? "")")
    }
}

extension Load: @EventLoop AMQPLinkHandler {
    func linkDidAttach(_ link: AMQPLink, _ remote: AMQPAttach) {
        guard role == .receiver else { return pump() }
        credit = arguments.window
        link.grant(UInt32(credit))
    }

    func linkHasCredit(_ link: AMQPLink) { pump() }

    func link(_ link: AMQPLink, didReceive delivery: AMQPDelivery, payload: UnsafeRawBufferPointer) {
        if startedAt == 0 { startedAt = monotonicNanoseconds() }
        begun += 1
        credit -= 1
        guard isRabbit else { return link.session.settleAwaitingConfirmation(link, delivery.id, .accepted) }
        link.session.settle(first: delivery.id, last: delivery.id, .accepted, asSender: false)
        self.link(link, settlementWasConfirmed: delivery.id, nil)
    }

    private var isRabbit: Bool { arguments.address.hasPrefix("/queue/") }

    func link(_ link: AMQPLink, settlementWasConfirmed deliveryID: UInt32, _ state: DeliveryState?) {
        finished += 1
        if finished == arguments.count { return finish() }
        if credit <= arguments.window / 2 {
            credit = arguments.window - (begun - finished)
            link.grant(UInt32(max(1, credit)))
        }
    }

    func link(_ link: AMQPLink, deliveryDidSettle settlement: AMQPSettlement) {
        guard settlement.state == .accepted else { return FileHandleError.say("not accepted") }
        spans.append(monotonicNanoseconds() - starts[Int(settlement.token.low)])
        finished += 1
        if finished == arguments.count { return finish() }
        pump()
    }

    func linkDidDetach(_ link: AMQPLink, _ error: AMQPError?) {
        FileHandleError.say("detached: \(error.map { "\($0)" } ?? "")")
    }
}

extension Load: ByteStreamReader {
    func streamDidRead(_ bytes: UnsafeRawBufferPointer) { engine.receive(bytes) }
    func streamDidEnd(_ error: SystemError?) { FileHandleError.say("stream ended") }
    func streamDidDrain() { pump() }
}

/// Fatal words to standard error.
enum FileHandleError {
    static func say(_ text: String) {
        let line = Array((text + "\n").utf8)
        _ = line.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
        exit(1)
    }
}

@main
struct AMQPLoad {
    static func main() {
        guard let arguments = Arguments(CommandLine.arguments) else {
            return FileHandleError.say(
                "usage: amqp-load amqp://host:port/address send|receive|both|idle COUNT [--window N]")
        }
        EventLoop.executor.bind()
        loopTask {
            do {
                try await run(arguments)
            } catch {
                FileHandleError.say("\(error)")
            }
        }
        EventLoop.executor.run()
    }

    @EventLoop
    static func run(_ arguments: Arguments) async throws {
        var roles: [Load.Role] = []
        switch arguments.mode {
        case "send": roles = [.sender]
        case "receive": roles = [.receiver]
        case "both": roles = [.receiver, .sender]
        default: roles = Array(repeating: .idle, count: arguments.count)
        }
        var left = roles.count
        let gate = Gate()
        var loads: [Load] = []
        for role in roles {
            let stream = try await ByteStream.connect(host: arguments.host, port: arguments.port)
            let load = Load(arguments, role, stream) {
                left -= 1
                if left == 0 { gate.open() }
            }
            loads.append(load)
            load.start()
        }
        await gate.wait()
        if arguments.mode == "idle" {
            let line = Array("{\"connections\": \(arguments.count)}\n".utf8)
            _ = line.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
            await offload { while getchar() != EOF {} }
            exit(0)
        }
        let start = loads.map(\.startedAt).min() ?? 0
        let end = loads.map(\.endedAt).max() ?? 0
        let spans = (loads.last?.spans ?? []).sorted()
        let median = spans.isEmpty ? 0 : Double(spans[spans.count / 2]) / 1000
        let seconds = Double(end - start) / 1e9
        let rate = Double(arguments.count) / seconds
        print("{\"messages\": \(arguments.count), \"seconds\": \(seconds), \"rate\": \(rate), \"p50_us\": \(median)}")
        exit(0)
    }
}
