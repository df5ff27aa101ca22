@testable import RedisClients
import Testing

@Suite struct RedisAddressTests {
    @Test func `the form of the Azure portal is read`() throws {
        let address = try RedisAddress("name.redis.example:6380,password=a=b,ssl=True,abortConnect=False")
        #expect(address.endpoints == [RedisEndpoint(host: "name.redis.example", port: 6380)])
        #expect(address.password == "a=b")
        #expect(address.usesTLS)
    }

    @Test(
        arguments: [
            ("localhost", "localhost", 6379, nil, nil, 0), ("redis://h", "h", 6379, nil, nil, 0),
            ("redis://:pw@h:7000/3", "h", 7000, nil, "pw", 3), ("redis://u:p@w@h", "h", 6379, "u", "p@w", 0),
            ("h:1,user=u,password=p,defaultDatabase=2", "h", 1, "u", "p", 2),
            ("redis://[::1]:6400", "::1", 6400, nil, nil, 0),
        ] as [(String, String, Int, String?, String?, Int)])
    func `hosts, ports and credentials are found`(
        text: String, host: String, port: Int, user: String?, password: String?, database: Int
    ) throws {
        let address = try RedisAddress(text)
        #expect(address.endpoints == [RedisEndpoint(host: host, port: port)])
        #expect(address.user == user)
        #expect(address.password == password)
        #expect(address.database == database)
    }

    @Test func `URLs have escapes and parameters`() throws {
        let address = try RedisAddress(
            "rediss://u%40x:p%3A%2F@h:1/2?ssl_cert_reqs=none&ssl_ca_certs=/a%20b.pem&client_name=me")
        #expect(address.user == "u@x")
        #expect(address.password == "p:/")
        #expect(address.database == 2)
        #expect(!address.verifiesCertificate)
        #expect(address.authorityFile == "/a b.pem")
        #expect(address.clientName == "me")
        #expect(throws: RedisError.self) { try RedisAddress("redis://h?ssl_cert_req=none") }
    }

    @Test(arguments: [
        "redis://u:p@h:7000/3", "rediss://:a%2Fb%40@h:1/0?ssl_cert_reqs=none", "unix://u:p@/run/r.sock?db=2",
        "unix:///a%3Fb%20c%25",
        "h:6380,password=k=,ssl=True,sslCaFile=/c a.pem", "localhost",
    ])
    func `the environment's URL leads to the same Redis`(text: String) throws {
        let address = try RedisAddress(text)
        #expect(try RedisAddress(#require(address.environment["REDIS_URL"])) == address)
    }

    @Test func `several servers are one Redis`() throws {
        let address = try RedisAddress("a:1,b, [::1]:3 ,ssl=True,password=x")
        #expect(
            address.endpoints == [
                RedisEndpoint(host: "a", port: 1), RedisEndpoint(host: "b", port: 6380),
                RedisEndpoint(host: "::1", port: 3),
            ])
        #expect(address.serverName(for: RedisEndpoint(host: "10.0.0.7", port: 13000)) == "a")
        #expect(address.serverName(for: RedisEndpoint(host: "node2", port: 13000)) == "node2")
        #expect(try RedisAddress("::1").endpoints == [RedisEndpoint(host: "::1", port: 6379)])
    }

    @Test(
        arguments: [
            ("good-Name1", nil), ("", "at least"), ("a--b", "two hyphens"), ("-a", "start or end"),
            ("a-", "start or end"),
            ("a_b", "only letters"), (String(repeating: "a", count: 64), "63"), ("é", "only letters"),
        ] as [(String, String?)])
    func `Azure's rule for names is held, and the broken part said`(name: String, words: String?) {
        #expect(RedisCacheName.brokenRule(name)?.contains(words ?? "") == (words == nil ? nil : true))
        #expect(RedisCacheName.brokenRule(String(repeating: "a", count: 63)) == nil)
    }

    @Test func `sockets and TLS ports are understood`() throws {
        #expect(try RedisAddress("unix:///run/redis.sock").endpoints.first?.unixPath == "/run/redis.sock")
        #expect(try RedisAddress("h,ssl=true").endpoints.first?.port == 6380)
        #expect(try RedisAddress("rediss://h").usesTLS)
    }

    @Test(arguments: [
        "", "password=x", "h:99999", "h:x", "http://h", "redis://h/x", "h,pasword=x", "h,defaultDatabase=x", "h,ssl=ja",
        "h,sslProtocols=tls10", "redis://h?dbb=1", "unix://x", "a b:1", "é:1", "h,protocol=3", "redis://h?protocol=3",
        "redis://",
    ])
    func `what is no address is refused`(text: String) {
        #expect(throws: RedisError.self) { try RedisAddress(text) }
    }

    @Test func `a misspelt option names the right one, and no secret is shown`() throws {
        #expect(
            #expect(throws: RedisError.self) { try RedisAddress("h,pasword=x") }?.remedy == "did you mean 'password'?")
        #expect(try !RedisAddress("redis://u:secret@h").description.contains("secret"))
    }
}

@Suite struct RedisReplyTests {
    private func feed(_ text: String, step: Int = .max) throws -> [RedisReply] {
        let reader = try #require(RedisReplyReader())
        let bytes = Array(text.utf8)
        var replies: [RedisReply] = []
        var offset = 0
        while offset < bytes.count {
            let piece = Array(bytes[offset..<min(bytes.count, offset + min(step, bytes.count))])
            offset += piece.count
            replies += try piece.withUnsafeBytes { try reader.feed($0) }
        }
        return replies
    }

    @Test(arguments: [1, 5, Int.max])
    func `replies come out whole however they are cut`(step: Int) throws {
        #expect(
            try feed("+OK\r\n$5\r\nhe\r\no\r\n$-1\r\n:42\r\n-ERR no\r\n*2\r\n$1\r\na\r\n:1\r\n", step: step) == [
                .status("OK"), .bytes(Array("he\r\no".utf8)), .null, .integer(42), .error("ERR no"),
                .array([.bytes([97]), .integer(1)]),
            ])
    }

    @Test(arguments: ["HTTP/1.1 400\r\n", "$abc\r\n", "\u{0}\u{1}\u{2}\r\n"])
    func `garbage is refused`(text: String) {
        #expect(throws: RedisError.self) { try feed(text) }
    }
}

@Suite struct RedisSlotMapTests {
    @Test(
        arguments: [
            // Source: CLUSTER KEYSLOT of a redis-server 7.0.
            ("123456789", 12739), ("foo", 12182), ("{user1000}.following", 3443), ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363), ("foo{{bar}}zap", 4015), ("", 0), ("a{b", 13340),
        ])
    func `a key's slot is the cluster's`(key: String, slot: Int) {
        #expect(RedisSlotMap.slot(of: Array(key.utf8)) == slot)
    }

    private let asked = RedisEndpoint(host: "asked", port: 7000)

    private func node(_ host: String?, _ port: Int) -> RedisReply {
        .array([host.map { .bytes(Array($0.utf8)) } ?? .null, .integer(port), .bytes([1])])
    }

    @Test func `slots, holes, replicas and nameless nodes are read`() throws {
        let reply = RedisReply.array([
            .array([.integer(0), .integer(5), node("a", 1), node("replica", 9)]),
            .array([.integer(7), .integer(16383), node("", 2)]),
        ])
        var map = try #require(RedisSlotMap(reply: reply, asked: asked))
        #expect(map.nodes == [RedisEndpoint(host: "a", port: 1), RedisEndpoint(host: "asked", port: 2)])
        #expect(map.node(of: 5) == RedisEndpoint(host: "a", port: 1))
        #expect(map.node(of: 6) == nil)
        #expect(map.missingCount == 1)
        map.move(6, to: RedisEndpoint(host: "b", port: 3))
        #expect(map.node(of: 6)?.host == "b")
        #expect(map.missingCount == 0)
        map.move(99999, to: asked)
    }

    @Test(
        arguments: [
            .null, .array([.integer(1)]),
            .array([.array([.integer(0), .integer(16384), .array([.null, .integer(1)])])]),
            .array([.array([.integer(9), .integer(3), .array([.null, .integer(1)])])]),
            .array([.array([.integer(0), .integer(3), .array([.null, .integer(0)])])]),
            .array([.array([.integer(0), .integer(3)])]), .error("ERR cluster support disabled"),
        ] as [RedisReply])
    func `what is no list of slots is refused`(reply: RedisReply) {
        #expect(RedisSlotMap(reply: reply, asked: asked) == nil)
    }

    @Test func `redirections are read, and nothing else taken for one`() {
        let moved = RedisRedirection("MOVED 3999 h:6381", asked: asked)
        #expect(moved?.slot == 3999)
        #expect(moved?.node == RedisEndpoint(host: "h", port: 6381))
        #expect(moved?.isAsk == false)
        #expect(RedisRedirection("ASK 1 :7001", asked: asked)?.node == RedisEndpoint(host: "asked", port: 7001))
        for text in [
            "MOVED", "MOVED x h:1", "MOVED 1 h", "MOVED 16384 h:1", "MOVED 1 h:0", "ERR MOVED 1 h:1", "OOM a b",
        ] {
            #expect(RedisRedirection(text, asked: asked) == nil)
        }
    }
}
