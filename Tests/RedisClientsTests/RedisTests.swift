@testable import RedisClients
import Testing

@Suite struct RedisAddressTests {
    @Test func `the form of the Azure portal is read`() throws {
        let address = try RedisAddress("name.redis.example:6380,password=a=b,c,ssl=True,abortConnect=False")
        #expect(address.host == "name.redis.example")
        #expect(address.port == 6380)
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
        #expect(address.host == host)
        #expect(address.port == port)
        #expect(address.user == user)
        #expect(address.password == password)
        #expect(address.database == database)
    }

    @Test func `sockets and TLS ports are understood`() throws {
        #expect(try RedisAddress("unix:///run/redis.sock").unixPath == "/run/redis.sock")
        #expect(try RedisAddress("h,ssl=true").port == 6380)
        #expect(try RedisAddress("rediss://h").usesTLS)
    }

    @Test(arguments: [
        "", "password=x", "h:99999", "h:x", "http://h", "redis://h/x", "h,pasword=x", "h,defaultDatabase=x",
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
