import Diagnostics
import EventLoops
import Glibc
import HostTestSupport
import Testing

/// Certificates made by the openssl program, once for the suite.
private struct Certificates: Sendable {
    let folder = TemporaryFolder()
    var authority: String { path("ca.pem") }

    func path(_ name: String) -> String { folder.path + "/" + name }

    init() async throws {
        folder.write("make.sh", Self.script)
        let status = try await onTheLoop { [path = folder.path] in
            let child = try ChildProcess(
                ChildCommand(
                    executable: "/bin/sh", arguments: ["make.sh"], environment: ["PATH": "/usr/bin:/bin"],
                    folder: path))
            return await child.waitForExit().status
        }
        try #require(status == 0)
    }

    private static let script = """
        set -e
        exec >make.log 2>&1
        key() { openssl ecparam -name prime256v1 -genkey -noout -out $1.key; }
        key ca; key other; key good; key wrong; key old; key early; key self
        openssl req -x509 -new -key ca.key -days 10 -subj '/CN=Test Authority' -out ca.pem
        openssl req -x509 -new -key self.key -days 10 -subj '/CN=localhost' -addext 'subjectAltName=DNS:localhost' -out self.pem
        openssl req -x509 -new -key other.key -days 10 -subj '/CN=Other Authority' -out other.pem
        touch index.txt
        cat >ca.cnf <<X
        [ca]
        default_ca=a
        [a]
        database=index.txt
        rand_serial=yes
        new_certs_dir=.
        default_md=sha256
        policy=p
        copy_extensions=copy
        unique_subject=no
        [p]
        commonName=supplied
        X
        sign() { # name, subjectAltName, start, end
          openssl req -new -key $1.key -subj /CN=$1 -addext "subjectAltName=$2" -out $1.csr
          openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -in $1.csr -out $1.pem -notext -startdate $3 -enddate $4
        }
        sign good DNS:localhost,IP:127.0.0.1 20200101000000Z 20990101000000Z
        sign wrong DNS:redis.example 20200101000000Z 20990101000000Z
        sign old DNS:localhost 20200101000000Z 20210101000000Z
        sign early DNS:localhost 20980101000000Z 20990101000000Z
        """
}

@EventLoop private final class Peer: ByteStreamReader {
    let stream: ByteStream
    var bytes: [UInt8] = []
    var error: SystemError?
    let ended = Gate()
    var wanted = 0
    let reached = Gate()
    var echoes = false

    init(_ stream: ByteStream) {
        self.stream = stream
    }

    func start() { stream.startReading(to: self) }

    func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        self.bytes.append(contentsOf: bytes)
        if echoes { stream.write(Array(bytes)) }
        if wanted > 0, self.bytes.count >= wanted { reached.open() }
    }

    func streamDidEnd(_ error: SystemError?) {
        self.error = error
        ended.open()
        if echoes { stream.finish() }
    }
}

/// A TLS server on a free port that echoes.
@EventLoop private final class EchoServer {
    var listener: StreamListener?
    var peers: [Peer] = []
    var failures: [TLSError] = []
    let failed = Gate()

    init(_ context: TLSContext, timeout: Duration = .seconds(10)) throws {
        listener = try StreamListener(address: "127.0.0.1", port: 0) { [weak self] stream in
            loopTask {
                do throws(TLSError) {
                    try await stream.startTLS(context, peer: "client", timeout: timeout)
                    let peer = Peer(stream)
                    peer.echoes = true
                    self?.peers.append(peer)
                    peer.start()
                } catch {
                    self?.failures.append(error)
                    self?.failed.open()
                }
            }
        }
    }

    var port: Int { listener?.port ?? 0 }
}

@Suite(.serialized) struct TLSTests {
    private static let made = Task { try await Certificates() }

    private func refusal(
        of certificate: String, name: String = "localhost", authority: String? = "ca.pem"
    ) async throws -> TLSError? {
        let files = try await Self.made.value
        return try await onTheLoop {
            let server = try EchoServer(
                TLSContext(
                    serverCertificateFile: files.path(certificate + ".pem"), keyFile: files.path(certificate + ".key")))
            let client = try TLSContext(client: TLSClientSettings(authorityFile: authority.map(files.path)))
            defer { server.listener?.close() }
            do {
                _ = try await ByteStream.connect(host: "127.0.0.1", port: server.port, tls: client, serverName: name)
                return nil
            } catch let error as TLSError {
                return error
            }
        }
    }

    @Test(arguments: [1, 5000, 3_000_000])
    func `bytes come back as they were`(count: Int) async throws {
        let files = try await Self.made.value
        let (same, version, error) = try await onTheLoop {
            let server = try EchoServer(
                TLSContext(serverCertificateFile: files.path("good.pem"), keyFile: files.path("good.key")))
            let context = try TLSContext(client: TLSClientSettings(authorityFile: files.authority))
            let stream = try await ByteStream.connect(host: "localhost", port: server.port, tls: context)
            let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let peer = Peer(stream)
            peer.wanted = count
            peer.start()
            stream.write(payload)
            await peer.reached.wait()
            // The other side echoes the end too: a clean one.
            stream.finishWriting {}
            await peer.ended.wait()
            stream.close()
            server.listener?.close()
            return (peer.bytes == payload, stream.tlsVersion, peer.error)
        }
        #expect(same)
        #expect(version == "TLSv1.3")
        #expect(error == nil)
    }

    @Test func `what arrives while nobody reads is kept`() async throws {
        let files = try await Self.made.value
        let text = try await onTheLoop {
            let context = try TLSContext(serverCertificateFile: files.path("good.pem"), keyFile: files.path("good.key"))
            let keeper = EchoServerStreams()
            let listener = try StreamListener(address: "127.0.0.1", port: 0) { stream in
                loopTask {
                    try? await stream.startTLS(context, peer: "client")
                    stream.write(Array("early".utf8))
                    keeper.streams.append(stream)
                    stream.finish()
                }
            }
            let client = try TLSContext(client: TLSClientSettings(authorityFile: files.authority))
            let stream = try await ByteStream.connect(host: "127.0.0.1", port: listener.port, tls: client)
            await sleep(for: .milliseconds(30))
            let peer = Peer(stream)
            peer.start()
            await peer.ended.wait()
            stream.close()
            listener.close()
            return String(decoding: peer.bytes, as: UTF8.self)
        }
        #expect(text == "early")
    }

    @Test func `a certificate for an address is good for the address`() async throws {
        #expect(try await refusal(of: "good", name: "127.0.0.1") == nil)
    }

    @Test func `each reason to refuse a certificate is named, with a remedy`() async throws {
        let old = try #require(try await refusal(of: "old"))
        guard case .expired(let peer, let date) = old else { return #expect(Bool(false), "\(old)") }
        #expect(peer.hasPrefix("127.0.0.1:"))
        #expect(date.contains("2021"))
        guard case .notYetValid? = try await refusal(of: "early") else { return #expect(Bool(false), "early") }
        let wrong = try #require(try await refusal(of: "wrong"))
        guard case .wrongHost(_, "localhost", "DNS:redis.example") = wrong else {
            return #expect(Bool(false), "\(wrong)")
        }
        let other = try #require(try await refusal(of: "good", authority: "other.pem"))
        guard case .unknownAuthority(_, let issuer, false) = other else { return #expect(Bool(false), "\(other)") }
        #expect(issuer.contains("Test Authority"))
        let own = try #require(try await refusal(of: "self", authority: nil))
        guard case .unknownAuthority(_, _, true) = own else { return #expect(Bool(false), "\(own)") }
        for error in [old, wrong, other, own] { #expect(error.remedy != nil && error.code == "AN1010") }
    }

    @Test func `the check can be switched off, and a self-signed certificate be trusted`() async throws {
        let files = try await Self.made.value
        try await onTheLoop {
            let server = try EchoServer(
                TLSContext(serverCertificateFile: files.path("self.pem"), keyFile: files.path("self.key")))
            for settings in [
                TLSClientSettings(verifiesCertificate: false), TLSClientSettings(authorityFile: files.path("self.pem")),
            ] {
                let context = try TLSContext(client: settings)
                let stream = try await ByteStream.connect(host: "localhost", port: server.port, tls: context)
                stream.close()
            }
            server.listener?.close()
        }
    }

    @Test func `a server that wants a client certificate gets it or refuses`() async throws {
        let files = try await Self.made.value
        let (served, refused) = try await onTheLoop {
            let server = try EchoServer(
                TLSContext(
                    serverCertificateFile: files.path("good.pem"), keyFile: files.path("good.key"),
                    clientAuthorityFile: files.authority))
            var settings = TLSClientSettings(authorityFile: files.authority)
            let plain = try TLSContext(client: settings)
            settings.certificateFile = files.path("wrong.pem")
            settings.keyFile = files.path("wrong.key")
            let known = try TLSContext(client: settings)
            let stream = try await ByteStream.connect(host: "localhost", port: server.port, tls: known)
            let peer = Peer(stream)
            peer.wanted = 1
            peer.start()
            stream.write([7])
            await peer.reached.wait()
            // TLS 1.3: the client's own handshake is over before the server refuses it.
            if let unknown = try? await ByteStream.connect(host: "localhost", port: server.port, tls: plain) {
                let other = Peer(unknown)
                other.start()
                await other.ended.wait()
                unknown.close()
            }
            await server.failed.wait()
            server.listener?.close()
            return (peer.bytes == [7], server.failures.count)
        }
        #expect(served)
        #expect(refused == 1)
    }

    @Test func `a server that speaks no TLS, closes or is silent is told apart`() async throws {
        let errors = try await onTheLoop { () -> [TLSError] in
            var errors: [TLSError] = []
            let context = try TLSContext(client: TLSClientSettings(verifiesCertificate: false))
            for behaviour in 0..<3 {
                let keeper = EchoServerStreams()
                let listener = try StreamListener(address: "127.0.0.1", port: 0) { stream in
                    keeper.streams.append(stream)
                    if behaviour == 0 { stream.write(Array("-ERR unknown command\r\n".utf8)) }
                    if behaviour == 1 { stream.close() }
                }
                do {
                    _ = try await ByteStream.connect(
                        host: "127.0.0.1", port: listener.port, tls: context, timeout: .milliseconds(200))
                } catch let error as TLSError {
                    errors.append(error)
                }
                listener.close()
            }
            return errors
        }
        try #require(errors.count == 3)
        guard case .notTLS = errors[0] else { return #expect(Bool(false), "\(errors[0])") }
        guard case .timedOut = errors[2] else { return #expect(Bool(false), "\(errors[2])") }
        #expect(errors[1].message.contains("127.0.0.1"))
    }

    @Test func `a server refuses what is no TLS, and a handshake that takes too long`() async throws {
        let files = try await Self.made.value
        let failures = try await onTheLoop {
            let context = try TLSContext(serverCertificateFile: files.path("good.pem"), keyFile: files.path("good.key"))
            let first = try EchoServer(context)
            let stream = try await ByteStream.connect(host: "127.0.0.1", port: first.port)
            stream.write(Array("GET / HTTP/1.1\r\n\r\n".utf8))
            await first.failed.wait()
            let second = try EchoServer(context, timeout: .milliseconds(50))
            let silent = try await ByteStream.connect(host: "127.0.0.1", port: second.port)
            await second.failed.wait()
            stream.close()
            silent.close()
            return first.failures + second.failures
        }
        #expect(failures.first == .notTLS(peer: "client"))
        #expect(failures.last == .timedOut(peer: "client", limit: .milliseconds(50)))
    }

    @Test func `an end without a TLS close is no clean end`() async throws {
        let files = try await Self.made.value
        let error = try await onTheLoop {
            let server = try EchoServer(
                TLSContext(serverCertificateFile: files.path("good.pem"), keyFile: files.path("good.key")))
            // A relay that cuts the connection after the handshake.
            let relay = Relay()
            let listener = try StreamListener(address: "127.0.0.1", port: 0) { relay.begin($0, server.port) }
            let context = try TLSContext(client: TLSClientSettings(authorityFile: files.authority))
            let stream = try await ByteStream.connect(host: "127.0.0.1", port: listener.port, tls: context)
            let peer = Peer(stream)
            peer.start()
            relay.cut()
            await peer.ended.wait()
            stream.close()
            return peer.error?.symbol
        }
        #expect(error == "ETLS")
    }

    @Test func `files that are missing or do not fit say so`() async throws {
        let files = try await Self.made.value
        func reason(_ certificate: String, _ key: String) -> TLSError? {
            do throws(TLSError) {
                _ = try TLSContext(serverCertificateFile: files.path(certificate), keyFile: files.path(key))
                return nil
            } catch {
                return error
            }
        }
        #expect(reason("none.pem", "good.key")?.message.contains("No such file") == true)
        #expect(reason("good.pem", "self.key")?.message.contains("not the key") == true)
        #expect(reason("good.key", "good.key")?.code == "AN1012")
        #expect(throws: TLSError.self) { try TLSContext(client: TLSClientSettings(authorityFile: "/nonexistent.pem")) }
    }
}

@EventLoop private final class EchoServerStreams { var streams: [ByteStream] = [] }

/// Passes bytes between a client and a server until it is cut.
@EventLoop private final class Relay {
    private final class End: ByteStreamReader {
        let stream: ByteStream
        var other: ByteStream?
        init(_ stream: ByteStream) { self.stream = stream }
        func streamDidRead(_ bytes: UnsafeRawBufferPointer) { other?.write(Array(bytes)) }
        func streamDidEnd(_ error: SystemError?) {}
    }
    private var ends: [End] = []

    func begin(_ stream: ByteStream, _ port: Int) {
        loopTask { [self] in
            guard let server = try? await ByteStream.connect(host: "127.0.0.1", port: port) else { return }
            let left = End(stream)
            let right = End(server)
            left.other = server
            right.other = stream
            ends = [left, right]
            stream.startReading(to: left)
            server.startReading(to: right)
        }
    }

    func cut() { for end in ends { end.stream.close() } }
}
