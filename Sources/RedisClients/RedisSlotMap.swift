/// Which node of a cluster serves which keys.

/// The 16 384 slots of a Redis cluster and the primary of each.
struct RedisSlotMap: Equatable, Sendable {
    static let slotCount = 16384

    /// The primaries, in the order they were first seen.
    private(set) var nodes: [RedisEndpoint] = []
    private var owner: [UInt16]
    private static let nobody = UInt16.max

    /// Reads the reply of `CLUSTER SLOTS`; nil when it is none.
    ///
    /// - Parameter asked: the node that answered; its own host may be missing in the reply.
    init?(reply: RedisReply, asked: RedisEndpoint) {
        guard case .array(let ranges) = reply else { return nil }
        owner = [UInt16](repeating: Self.nobody, count: Self.slotCount)
        for range in ranges {
            guard case .array(let parts) = range, parts.count >= 3,
                case .integer(let first) = parts[0], case .integer(let last) = parts[1],
                (0..<Self.slotCount).contains(first), (first..<Self.slotCount).contains(last),
                case .array(let node) = parts[2], node.count >= 2, case .integer(let port) = node[1],
                (1...65535).contains(port)
            else { return nil }
            var host = asked.host
            if case .bytes(let name) = node[0], !name.isEmpty, name != [UInt8(ascii: "?")] {
                host = String(decoding: name, as: UTF8.self)
            }
            let number = index(of: RedisEndpoint(host: host, port: port))
            for slot in first...last { owner[slot] = number }
        }
    }

    private mutating func index(of node: RedisEndpoint) -> UInt16 {
        if let known = nodes.firstIndex(of: node) { return UInt16(known) }
        nodes.append(node)
        return UInt16(nodes.count - 1)
    }

    /// Slots that nobody serves.
    var missingCount: Int { owner.count { $0 == Self.nobody } }

    /// The node that serves `slot`; nil when nobody does.
    func node(of slot: Int) -> RedisEndpoint? {
        owner[slot] == Self.nobody ? nil : nodes[Int(owner[slot])]
    }

    /// Takes note that `slot` has moved.
    mutating func move(_ slot: Int, to node: RedisEndpoint) {
        guard (0..<Self.slotCount).contains(slot) else { return }
        owner[slot] = index(of: node)
    }

    /// The slot of a key: CRC-16 (XMODEM) of the key, or of what stands between the first braces.
    ///
    /// Source: Redis cluster specification, «Key distribution model» and «Hash tags».
    static func slot(of key: [UInt8]) -> Int {
        var range = key.indices
        if let open = key.firstIndex(of: UInt8(ascii: "{")),
            let close = key[(open + 1)...].firstIndex(of: UInt8(ascii: "}")), close > open + 1
        {
            range = (open + 1)..<close
        }
        var sum: UInt16 = 0
        for index in range { sum = sum << 8 ^ table[Int((sum >> 8 ^ UInt16(key[index])) & 0xFF)] }
        return Int(sum) & (slotCount - 1)
    }

    private static let table: [UInt16] = (0..<256).map { value in
        var sum = UInt16(value) << 8
        for _ in 0..<8 { sum = sum & 0x8000 != 0 ? sum << 1 ^ 0x1021 : sum << 1 }
        return sum
    }
}

/// A node's answer that a key is elsewhere.
struct RedisRedirection: Equatable {
    let slot: Int
    let node: RedisEndpoint
    /// True for `ASK`: only this command, only now.
    let isAsk: Bool

    /// Reads `MOVED 3999 host:port` or `ASK 3999 host:port`; nil for any other error.
    ///
    /// - Parameter asked: the node that answered; the reply may leave its host out.
    init?(_ error: String, asked: RedisEndpoint) {
        let words = error.split(separator: " ")
        guard words.count >= 3, words[0] == "MOVED" || words[0] == "ASK", let slot = Int(words[1]),
            (0..<RedisSlotMap.slotCount).contains(slot), let colon = words[2].lastIndex(of: ":"),
            let port = Int(words[2][words[2].index(after: colon)...]), (1...65535).contains(port)
        else { return nil }
        let host = words[2][..<colon]
        self.slot = slot
        node = RedisEndpoint(host: host.isEmpty ? asked.host : String(host), port: port)
        isAsk = words[0] == "ASK"
    }
}
