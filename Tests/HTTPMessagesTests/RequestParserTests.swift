import HTTPMessages
import Testing

/// Parses text in which `\n` stands for CR LF unless `raw`.
private func parse(_ text: String, limits: HeadLimits = HeadLimits()) -> HeadParseResult {
    let bytes = Array(text.utf8)
    return RequestParser.parse(bytes.span, limits: limits)
}

private func head(_ text: String) throws -> RequestHead {
    guard case .complete(let head, let count) = parse(text) else { throw Missing() }
    #expect(count == text.utf8.count)
    return head
}

private struct Missing: Error {}

private func status(_ text: String, limits: HeadLimits = HeadLimits()) -> Int? {
    switch parse(text, limits: limits) {
    case .failed(let error): error.status
    case .complete: 200
    case .needsMore: nil
    }
}

@Suite struct RequestParserTests {
    @Test func `a request is taken apart`() throws {
        let head = try head(
            "POST /api/x?a=1&b HTTP/1.1\r\nHost: h\r\nX-Thing:  v w \t\r\nContent-Length: 12\r\n\r\n")
        #expect(head.method == "POST")
        #expect(head.path.elementsEqual("/api/x".utf8))
        #expect(head.query?.elementsEqual("a=1&b".utf8) == true)
        #expect(head.value("x-thing") == "v w")
        #expect(head.framing == .length(12))
        #expect(head.keepsAlive)
        #expect(head.fieldCount == 3)
    }

    @Test(arguments: [
        ("GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false), ("GET /a HTTP/1.0\r\n\r\n", false),
        ("GET /a HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n", true),
        ("GET /a HTTP/1.1\r\nHost: h\r\nConnection: foo ,close\r\n\r\n", false),
    ])
    func `the connection persists as the version and the header say`(text: String, keepsAlive: Bool) throws {
        #expect(try head(text).keepsAlive == keepsAlive)
    }

    @Test func `absolute and asterisk targets are understood`() throws {
        #expect(try head("GET http://h:1/p?q HTTP/1.1\r\nHost: h\r\n\r\n").path.elementsEqual("/p".utf8))
        #expect(try head("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").path.elementsEqual("*".utf8))
    }

    /// What could make a proxy in front see another request than we do, and other things that are not HTTP.
    @Test(arguments: [
        ("two Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        ("a list in Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (
            "Content-Length and chunked",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400
        ),
        (
            "chunked and Content-Length",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400
        ),
        ("another coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("chunked with a tab", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \u{B}chunked\r\n\r\n", 400),
        ("chunked in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("bare line feeds", "GET / HTTP/1.1\nHost: h\n\n", 400),
        ("a bare line feed between headers", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
        ("a bare carriage return", "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400),
        ("a folded header", "GET / HTTP/1.1\r\nHost: h\r\n x\r\n\r\n", 400),
        ("a space before the colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        ("a space before the name", "GET / HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n", 400),
        ("an empty name", "GET / HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", 400),
        ("a NUL in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\u{0}b\r\n\r\n", 400),
        ("no Host", "GET / HTTP/1.1\r\n\r\n", 400), ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("a signed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n", 400),
        ("a hexadecimal length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\n", 400),
        ("an empty length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n", 400),
        ("a length that overflows", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("HTTP/2", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505), ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
        ("no version", "GET /\r\n\r\n", 400), ("two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("a relative target", "GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("a fragment", "GET /#a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("raw UTF-8 in the target", "GET /é HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("CONNECT", "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("an unknown expectation", "POST / HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\n\r\n", 417),
        ("TLS", "\u{16}\u{3}\u{1}", 400), ("a lone colon line", "GET / HTTP/1.1\r\nHost: h\r\nnocolon\r\n\r\n", 400),
    ])
    func `what is not strictly HTTP is refused`(name: String, text: String, expected: Int) {
        #expect(status(text) == expected, "\(name)")
    }

    @Test func `every split of a request gives the same result`() throws {
        let text = "\r\nPUT /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-B:\t2 \r\nTransfer-Encoding: CHUNKED\r\n\r\n"
        let bytes = Array(text.utf8)
        for count in 0..<bytes.count {
            let part = Array(bytes[..<count])
            guard case .needsMore = RequestParser.parse(part.span) else {
                Issue.record("complete or failed after \(count) bytes")
                return
            }
        }
        guard case .complete(let head, let used) = RequestParser.parse(bytes.span) else {
            Issue.record("not complete")
            return
        }
        #expect(used == bytes.count)
        #expect(head.framing == .chunked)
        #expect(head.value("x-b") == "2")
        let mayBeComplete = RequestParser.mayBeComplete(bytes.span, from: 0)
        #expect(mayBeComplete)
    }

    @Test func `limits hold at their edge and one past it`() {
        var limits = HeadLimits()
        limits.fieldCount = 3
        let fields = { (count: Int) in String(repeating: "X: y\r\n", count: count) }
        #expect(status("GET / HTTP/1.1\r\nHost: h\r\n\(fields(2))\r\n", limits: limits) == 200)
        #expect(status("GET / HTTP/1.1\r\nHost: h\r\n\(fields(3))\r\n", limits: limits) == 431)
        limits = HeadLimits()
        limits.requestLineByteCount = 20
        let target = { (count: Int) in "/" + String(repeating: "a", count: count - 1) }
        #expect(status("GET \(target(16)) HTTP/1.1\r\nHost: h\r\n\r\n", limits: limits) == 200)
        #expect(status("GET \(target(17)) HTTP/1.1\r\nHost: h\r\n\r\n", limits: limits) == 414)
        limits = HeadLimits()
        limits.headByteCount = 64
        let padded = { (size: Int) in
            let start = "GET / HTTP/1.1\r\nHost: h\r\nX: "
            return start + String(repeating: "a", count: size - start.utf8.count - 4) + "\r\n\r\n"
        }
        #expect(status(padded(64), limits: limits) == 200)
        #expect(status(padded(65), limits: limits) == 431)
        #expect(status(String(padded(80).dropLast(4)), limits: limits) == 431)
    }
}

@Suite struct ChunkedDecoderTests {
    private func decode(_ text: String, limit: Int = 1000, step: Int = .max) -> (
        body: String, progress: ChunkedDecoder.Progress, rest: Int
    ) {
        var decoder = ChunkedDecoder(bodyLimit: limit)
        var body: [UInt8] = []
        let bytes = Array(text.utf8)
        var offset = 0
        while offset < bytes.count {
            let piece = Array(bytes[offset..<min(bytes.count, offset + min(step, bytes.count))])
            let (consumed, progress) = decoder.feed(piece.span, into: &body)
            offset += consumed
            if progress != .needsMore { return (String(decoding: body, as: UTF8.self), progress, bytes.count - offset) }
        }
        return (String(decoding: body, as: UTF8.self), .needsMore, 0)
    }

    @Test(arguments: [1, 2, 3, 7, Int.max])
    func `a body comes out whole however it is cut`(step: Int) {
        let text = "5;a=\"b\"\r\nhello\r\nA\r\n 123456789\r\n0\r\nX: y\r\n\r\nGET"
        let (body, progress, rest) = decode(text, step: step)
        #expect(body == "hello 123456789")
        #expect(progress == .complete)
        #expect(rest == (step == .max ? 3 : rest))
    }

    @Test(arguments: [
        "g\r\n", "\r\n", "5\nhello", "5\r\nhelloX", "5\r\nhello\rX", "FFFFFFFFFFFFFFFF\r\n", "0\r\nX\u{0}\r\n\r\n",
        "0\r\n\rX",
        "1 \r\na\r\n", "-1\r\n", "0x1\r\na\r\n",
    ])
    func `what is not chunked coding is refused`(text: String) {
        guard case .failed(let error) = decode(text).progress else {
            Issue.record("accepted \(text.debugDescription)")
            return
        }
        #expect(error.status == 400)
    }

    @Test func `the body limit holds at its edge and one past it`() {
        #expect(decode("5\r\nhello\r\n0\r\n\r\n", limit: 5).progress == .complete)
        #expect(decode("6\r\n", limit: 5).progress == .failed(HTTPParseError(413, "the body is too large")))
        #expect(decode("3\r\nabc\r\n3\r\n", limit: 5).progress == .failed(HTTPParseError(413, "the body is too large")))
    }

    @Test func `size lines and trailers are bounded`() {
        let long = String(repeating: "x", count: ChunkedDecoder.sizeLineLimit)
        guard case .failed = decode("1;\(long)\r\na\r\n").progress else {
            Issue.record("a long extension was accepted")
            return
        }
        let trailer = String(repeating: "x", count: ChunkedDecoder.trailerLimit + 1)
        guard case .failed(let error) = decode("0\r\nX: \(trailer)\r\n\r\n").progress else {
            Issue.record("long trailers were accepted")
            return
        }
        #expect(error.status == 431)
    }
}

@Suite struct MessagePartsTests {
    @Test(arguments: [("a%20b", "a b"), ("%C3%A9", "é"), ("a+b", "a+b")])
    func `escapes are decoded`(text: String, expected: String) {
        #expect(PercentCoding.decode(text.utf8) == expected)
    }

    @Test(arguments: ["%", "%4", "%zz", "%00", "%ff"])
    func `broken escapes are refused`(text: String) {
        #expect(PercentCoding.decode(text.utf8) == nil)
    }

    @Test func `a query gives names and values in order`() {
        let pairs = PercentCoding.query(Array("a=1&b=x+y&c&a=%zz".utf8)[...])
        #expect(pairs.map(\.name) == ["a", "b", "c", "a"])
        #expect(pairs.map(\.value) == ["1", "x y", "", "%zz"])
    }

    @Test func `a response cannot be split by a header's value`() {
        var fields = HTTPFields()
        let injected = fields.add("X", "a\r\nSet-Cookie: b")
        let badName = fields.add("X Y", "a")
        let good = fields.add("X-Good", "v")
        #expect(!injected)
        #expect(!badName)
        #expect(good)
        #expect(String(decoding: fields.bytes, as: UTF8.self) == "X-Good: v\r\n")
        #expect(fields.value(of: "x-good") == "v")
        #expect(!fields.contains("x"))
    }

    @Test func `a response is written with length and date`() {
        var bytes: [UInt8] = []
        HTTPResponse.text(404, "no").appendHead(to: &bytes, date: Array("D".utf8), keepsAlive: false, minorVersion: 1)
        #expect(
            String(decoding: bytes, as: UTF8.self)
                == "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\nDate: D\r\nConnection: close\r\n\r\n"
        )
        bytes = []
        HTTPResponse(status: 204).appendHead(to: &bytes, date: Array("D".utf8), keepsAlive: true, minorVersion: 1)
        #expect(!String(decoding: bytes, as: UTF8.self).contains("Content-Length"))
    }

    @Test(arguments: [0, 7, 10, 99, 1234567890])
    func `decimals are written`(number: Int) {
        var bytes: [UInt8] = []
        appendDecimal(number, to: &bytes)
        #expect(String(decoding: bytes, as: UTF8.self) == "\(number)")
    }
}
