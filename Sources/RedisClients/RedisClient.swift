/// A Redis on any tier: one server, a primary with replicas, or a cluster.
public import Diagnostics
public import EventLoops

/// Connects by itself, in the background, and again when a connection is lost; a command that cannot be sent now
/// fails at once.
@EventLoop
public final class RedisClient {
    public let address: RedisAddress
    let connectTimeout: Duration
    private let log: EventLog
    private var connections: [RedisEndpoint: RedisConnection] = [:]
    /// The cluster's slots; nil for one server.
    private var map: RedisSlotMap?
    private var seedIndex = 0
    private var needsSlots = false
    private var isAskingSlots = false
    private var lastAsked: UInt64 = 0
    private var lastDemotion: UInt64 = 0
    private var isClosed = false
    private var timer: LoopTimer?
    private var context: TLSContext?
    /// Codes of what was reported since all was well.
    private var reported: Set<String> = []
    /// Commands sent, for metrics.
    public private(set) var commandCount = 0
    /// Commands that a cluster sent on to another node.
    public private(set) var redirectionCount = 0
    /// Connections made.
    public private(set) var connectionCount = 0

    public typealias Completion = @EventLoop (Result<RedisReply, RedisError>) -> Void

    /// How often a command may be sent on.
    static let redirectionLimit = 5
    /// The shortest time between two questions for the slots.
    private static let slotsPause = Duration.milliseconds(200)
    /// The shortest time between two reconnects because a primary became a replica.
    private static let demotionPause = Duration.seconds(5)

    public init(address: RedisAddress, connectTimeout: Duration, log: EventLog) {
        self.address = address
        self.connectTimeout = connectTimeout
        self.log = log
        timer = LoopTimer { [unowned self] in tend() }
    }

    /// Whether commands can be sent now; of a cluster, to some node.
    public var isConnected: Bool { connections.values.contains { $0.isReady } }

    /// True for a cluster.
    public var isCluster: Bool { map != nil }

    /// What is wrong now, or nil.
    public var lastError: RedisError? {
        guard let map else { return connections[seed]?.lastError }
        if map.missingCount > 0 { return .slotsMissing(map.missingCount) }
        return map.nodes.lazy.compactMap { self.connections[$0] }.first { !$0.isReady }?.lastError
    }

    /// What a person wants to know of the connection: `2 of 3 nodes`, `a replica`.
    public var state: String {
        if let map {
            return "cluster, \(map.nodes.count { connections[$0]?.isReady == true }) of \(map.nodes.count) nodes"
        }
        guard let connection = connections[seed], connection.isReady else { return "not connected" }
        return connection.isReplica ? "connected to a replica, which only reads" : "connected"
    }

    private var seed: RedisEndpoint { address.endpoints[seedIndex % address.endpoints.count] }

    // MARK: Commands

    /// Sends a command; `done` gets its reply, or why there is none, within `limit`.
    ///
    /// - Parameter key: the key it is about, which decides the node of a cluster; nil is any node.
    public func send(_ arguments: [[UInt8]], key: [UInt8]?, limit: Duration, _ done: @escaping Completion) {
        commandCount += 1
        guard let map else {
            guard let connection = connections[seed] else {
                connectIfNeeded()
                return done(.failure(.unavailable("not connected yet")))
            }
            return attempt(arguments, on: connection, deadline: nil, limit: limit, hops: 0, done)
        }
        let slot = key.map(RedisSlotMap.slot)
        let node = slot.map { map.node(of: $0) } ?? map.nodes.first { connections[$0]?.isReady == true }
        guard let node else {
            askForSlots()
            return done(
                .failure(slot == nil ? .unavailable("no node of the cluster") : .slotsMissing(map.missingCount)))
        }
        let deadline = monotonicNanoseconds() + limit.wholeNanoseconds
        attempt(arguments, on: connection(to: node), deadline: deadline, limit: limit, hops: 0, done)
    }

    /// Sends a command whose reply only matters when it is an error.
    public func send(
        ignoringReplyTo arguments: [[UInt8]], key: [UInt8]?, _ failed: @escaping @EventLoop (RedisError) -> Void
    ) {
        guard isConnected else { return connectIfNeeded() }
        send(arguments, key: key, limit: .seconds(10)) { result in
            if case .failure(let error) = result { failed(error) }
        }
    }

    /// Sends a command and waits for its reply, at most `limit`.
    public func command(_ arguments: [[UInt8]], key: [UInt8]?, limit: Duration) async throws(RedisError) -> RedisReply {
        let result = await withUnsafeContinuation { continuation in
            send(arguments, key: key, limit: limit) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Sends a command to every primary and waits for all replies; a node that cannot be reached is left out.
    public func everywhere(_ arguments: [[UInt8]], limit: Duration) async -> [Result<RedisReply, RedisError>] {
        let nodes = (map?.nodes ?? [seed]).map { connection(to: $0) }
        return await withUnsafeContinuation { continuation in
            var results: [Result<RedisReply, RedisError>] = []
            for node in nodes {
                node.send(arguments, limit: limit) { result in
                    results.append(Self.checked(result))
                    if results.count == nodes.count { continuation.resume(returning: results) }
                }
            }
        }
    }

    /// Keys that match a pattern, on all primaries, at most `limit`.
    public func scan(_ pattern: String, limit: Int) async throws(RedisError) -> [[UInt8]] {
        var keys: [[UInt8]] = []
        for node in (map?.nodes ?? [seed]).map({ connection(to: $0) }) {
            var cursor = Array("0".utf8)
            repeat {
                let command = ["SCAN", "", "MATCH", pattern, "COUNT", "1000"].map { Array($0.utf8) }
                let reply = await exchange(command[..<1] + [cursor] + command[2...], on: node)
                guard case .array(let parts) = try reply.get(), parts.count == 2, case .bytes(let next) = parts[0],
                    case .array(let found) = parts[1]
                else { throw .protocolBroken("SCAN answers with something else") }
                for case .bytes(let key) in found where keys.count < limit { keys.append(key) }
                cursor = next
            } while cursor != Array("0".utf8) && keys.count < limit
        }
        return keys
    }

    private func exchange(_ command: ArraySlice<[UInt8]>, on node: RedisConnection) async -> Result<
        RedisReply, RedisError
    > {
        await withUnsafeContinuation { continuation in
            node.send(Array(command), limit: .seconds(5)) { continuation.resume(returning: Self.checked($0)) }
        }
    }

    private static func checked(_ result: Result<RedisReply, RedisError>) -> Result<RedisReply, RedisError> {
        if case .success(.error(let text)) = result { .failure(.server(text)) } else { result }
    }

    private func attempt(
        _ arguments: [[UInt8]], on connection: RedisConnection, deadline: UInt64?, limit: Duration, hops: Int,
        _ done: @escaping Completion
    ) {
        connection.send(arguments, limit: limit) { [weak self, unowned connection] result in
            guard case .success(.error(let text)) = result else { return done(result) }
            guard let self else { return done(.failure(.server(text))) }
            guard let next = RedisRedirection(text, asked: connection.endpoint), hops < Self.redirectionLimit else {
                note(text, from: connection)
                return done(.failure(.server(text)))
            }
            follow(next, arguments, deadline: deadline, limit: limit, hops: hops, done)
        }
    }

    /// Sends a command on to the node that a cluster named, within the time that is left.
    private func follow(
        _ next: RedisRedirection, _ arguments: [[UInt8]], deadline: UInt64?, limit: Duration, hops: Int,
        _ done: @escaping Completion
    ) {
        redirectionCount += 1
        if !next.isAsk {
            map?.move(next.slot, to: next.node)
            needsSlots = true
            askForSlots()
        }
        let now = monotonicNanoseconds()
        let end = deadline ?? now + limit.wholeNanoseconds
        guard end > now else { return done(.failure(.timedOut(limit))) }
        let left = Duration.nanoseconds(Int64(end - now))
        let target = connection(to: next.node)
        if next.isAsk { target.send([Array("ASKING".utf8)], limit: nil, nil) }
        attempt(arguments, on: target, deadline: end, limit: left, hops: hops + 1, done)
    }

    /// Acts on errors that say something about the server's place.
    private func note(_ error: String, from connection: RedisConnection) {
        if error.hasPrefix("READONLY") {
            let now = monotonicNanoseconds()
            // A primary became a replica: somewhere is a new primary, perhaps behind the same name.
            let pause = Self.demotionPause * (connection.isReplica && address.endpoints.count == 1 ? 6 : 1)
            guard lastDemotion == 0 || now > lastDemotion + pause.wholeNanoseconds else { return }
            lastDemotion = now
            if map == nil {
                connection.fail(.unavailable("\(connection.endpoint) became a replica"))
            } else {
                needsSlots = true
                askForSlots()
            }
        } else if error.hasPrefix("CLUSTERDOWN") || error.hasPrefix("MASTERDOWN") {
            needsSlots = map != nil
            askForSlots()
        }
    }

    // MARK: Connections

    /// Starts connecting, if nothing is under way; never waits.
    public func connectIfNeeded() {
        guard !isClosed, timer?.isActive != true, connections[seed]?.isWorking != true || map != nil else { return }
        tend()
    }

    private func connection(to endpoint: RedisEndpoint) -> RedisConnection {
        if let known = connections[endpoint] {
            known.connectIfNeeded()
            return known
        }
        let made = RedisConnection(endpoint: endpoint, client: self)
        connections[endpoint] = made
        if !isClosed { made.connectIfNeeded() }
        return made
    }

    /// Brings about what should be: connections to the server or to every node, and the slots. Runs again by a timer
    /// as long as something is missing.
    private func tend() {
        guard !isClosed else { return }
        if let map, map.nodes.allSatisfy({ connections[$0]?.isReady != true && connections[$0]?.lastError != nil }) {
            // Nobody of the cluster is there: begin again with what the connection string names.
            self.map = nil
        }
        let wanted = map?.nodes ?? [seed]
        for endpoint in wanted { connection(to: endpoint).connectIfNeeded() }
        let isWhole = wanted.allSatisfy { connections[$0]?.isReady == true }
        if map != nil, needsSlots || !isWhole { askForSlots() }
        if isWhole, !needsSlots {
            timer?.stop()
        } else {
            let next = wanted.compactMap { connections[$0] }.filter { !$0.isWorking }.map(\.nextAttempt).min() ?? 0
            let now = monotonicNanoseconds()
            let pause = next > now ? Duration.nanoseconds(Int64(next - now)) : Self.slotsPause
            timer?.start(after: needsSlots ? min(pause, Self.slotsPause) : pause)
        }
        report()
    }

    func didOpen(_ connection: RedisConnection) {
        connectionCount += 1
        if connection.isReplica, map == nil, address.endpoints.count > 1, connection.slots?.isEmptyArray != false {
            return connection.fail(.unavailable("\(connection.endpoint) is a replica"))
        }
        if let reply = connection.slots, !reply.isEmptyArray || map != nil, map == nil || needsSlots {
            install(reply, from: connection)
        }
        tend()
    }

    func didFail(_ connection: RedisConnection) {
        guard !isClosed else { return }
        if map == nil, connection.endpoint == seed { seedIndex += 1 }
        needsSlots = map != nil
        tend()
    }

    private func askForSlots() {
        let now = monotonicNanoseconds()
        guard map != nil, !isAskingSlots, now > lastAsked + Self.slotsPause.wholeNanoseconds else {
            if needsSlots, timer?.isActive != true { timer?.start(after: Self.slotsPause) }
            return
        }
        guard let node = connections.values.filter({ $0.isReady }).randomElement() else { return }
        isAskingSlots = true
        lastAsked = now
        node.send([Array("CLUSTER".utf8), Array("SLOTS".utf8)], limit: connectTimeout) {
            [weak self, unowned node] result in
            guard let self else { return }
            isAskingSlots = false
            if case .success(let reply) = result { install(reply, from: node) }
            tend()
        }
    }

    private func install(_ reply: RedisReply, from node: RedisConnection) {
        guard let new = RedisSlotMap(reply: reply, asked: node.endpoint), !new.nodes.isEmpty else { return }
        map = new
        needsSlots = new.missingCount > 0
        // Connections to nodes that serve nothing any more, and are not there, are forgotten.
        for (endpoint, connection) in connections where !new.nodes.contains(endpoint) && !connection.isReady {
            connection.close()
            connections[endpoint] = nil
        }
    }

    /// The certificates to trust, read once off the loop; again after a failure.
    func tlsContext() async throws(RedisError) -> TLSContext {
        if let context { return context }
        var settings = TLSClientSettings(
            authorityFile: address.authorityFile, verifiesCertificate: address.verifiesCertificate)
        settings.certificateFile = address.certificateFile
        settings.keyFile = address.keyFile
        let made = await offload { [settings] in
            Result { () throws(TLSError) in try TLSContext(client: settings) }
        }
        switch made {
        case .success(let context):
            self.context = context
            return context
        case .failure(let error): throw .tls(error)
        }
    }

    /// Says once what is wrong, and once that it is over.
    private func report() {
        let fields: [(String, HostEvent.Value)] = [("address", .text(address.description))]
        if let error = lastError {
            guard reported.insert(error.code).inserted else { return }
            let remedy: [(String, HostEvent.Value)] = error.remedy.map { [("try", .text($0))] } ?? []
            log(HostEvent(.cacheEvent, .warning, error.message, [("code", .text(error.code))] + remedy + fields))
        } else if isConnected, !reported.isEmpty {
            reported = []
            log(HostEvent(.cacheEvent, .information, "Redis is reachable again", fields))
        }
    }

    /// Closes for good.
    public func close() {
        isClosed = true
        timer?.stop()
        for connection in connections.values { connection.close() }
        connections = [:]
    }
}

extension RedisReply {
    var isEmptyArray: Bool { self == .array([]) }
}
