/// The seeds of the fuzz target, which a script writes with an encoder of its own: they are what their names say.
@testable import AMQP
import Glibc
import Testing

@Suite struct SeedTests {
    static let folder = String(#filePath.dropLast("/AMQPTests/SeedTests.swift".count)) + "/Fuzz/corpus/amqp/"

    /// The seeds whose names begin so, without their first byte.
    static func seeds(_ prefix: String) -> [(name: String, bytes: [UInt8])] {
        var found: [(String, [UInt8])] = []
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name.hasPrefix(prefix), let file = fopen(folder + name, "r") else { continue }
            var bytes = [UInt8](repeating: 0, count: 65_536)
            bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
            fclose(file)
            found.append((name, Array(bytes.dropFirst())))
        }
        return found
    }

    @Test func `values are read to their end`() throws {
        let seeds = Self.seeds("value-")
        #expect(seeds.count >= 40)
        for seed in seeds { #expect(throws: Never.self, "\(seed.name)") { try CodecTests.decode(seed.bytes) } }
    }

    @Test func `messages are read`() {
        let seeds = Self.seeds("message-")
        #expect(seeds.count >= 12)
        for seed in seeds { #expect(throws: Never.self, "\(seed.name)") { try AMQPMessage(seed.bytes) } }
    }

    @Test func `conversations go on to their last frame`() {
        let server = Self.seeds("server-")
        let client = Self.seeds("client-")
        #expect(server.count >= 30 && client.count >= 15)
        // What ends a connection, as its name says.
        let ends = ["close", "close-error", "sasl-refused", "sasl-challenge", "sasl-response"]
        for (name, bytes) in server + client {
            let isServer = name.hasPrefix("server-")
            let peer = Peer(
                isServer
                    ? .server(mechanisms: ["MSSBCBS", "PLAIN", "ANONYMOUS"])
                    : .client(mechanism: "ANONYMOUS", response: []))
            peer.engine.start()
            if !isServer {
                _ = peer.engine.beginSession().attachReceiver(name: "r", source: .source("q"), handler: peer)
            }
            bytes.withUnsafeBytes { peer.engine.receive($0) }
            let isOver = ends.contains(String(name.dropFirst("server-".count)))
            #expect(peer.closed.isEmpty == !isOver, "\(name): \(peer.closed)")
            if name.contains("-transfer"), !name.hasSuffix("aborted") { #expect(peer.received.count == 1, "\(name)") }
        }
    }
}
