/// Accepting and opening connections.
internal import CUV
internal import Glibc

/// Listens on a TCP address and hands over each accepted stream; closed when dropped.
@EventLoop
public final class StreamListener {
    private let handle: UnsafeMutablePointer<uv_tcp_t>
    private let accept: @EventLoop (ByteStream) -> Void
    private var isClosed = false
    /// The port in use: the one asked for, or the one the system chose for 0.
    public private(set) var port: Int = 0

    /// How many connections may wait to be accepted.
    public static let backlog: Int32 = 4096

    /// Binds and listens. `address` is an IPv4 or IPv6 literal.
    ///
    /// - Throws: ``SystemError`` with `EADDRINUSE` when the port is taken, `EINVAL` for no address.
    public init(
        address: String, port: Int, accept: @escaping @EventLoop (ByteStream) -> Void
    ) throws(SystemError) {
        self.accept = accept
        handle = .allocate(capacity: 1)
        uv_tcp_init(EventLoop.executor.loop, handle)
        let place = address.contains(":") ? "[\(address)]:\(port)" : "\(address):\(port)"
        var storage = sockaddr_storage()
        var status = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                uv_ip4_addr(address, Int32(port), $0)
            }
        }
        if status != 0 {
            status = withUnsafeMutablePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                    uv_ip6_addr(address, Int32(port), $0)
                }
            }
        }
        if status == 0 {
            status = withUnsafePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { uv_tcp_bind(handle, $0, 0) }
            }
        }
        if status == 0 {
            handle.pointee.data = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: cleared in close.
            status = uv_listen(andiron_stream(handle), Self.backlog) { server, status in
                guard status == 0, let data = server?.pointee.data else { return }
                // SAFETY: `data` is the listener until it is closed.
                let me = Unmanaged<StreamListener>.fromOpaque(data).takeUnretainedValue()
                EventLoop.assumeIsolated { me.acceptOne() }
            }
        }
        guard status == 0 else {
            isClosed = true
            uv_close(andiron_handle(handle)) { closed in closed?.deallocate() }
            throw SystemError("listen", status, place)
        }
        self.port = boundPort()
    }

    isolated deinit { close() }

    private func boundPort() -> Int {
        var storage = sockaddr_storage()
        var length = Int32(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = uv_tcp_getsockname(handle, $0, &length) }
            // sin_port and sin6_port lie at the same offset.
            return pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                Int(UInt16(bigEndian: $0.pointee.sin_port))
            }
        }
    }

    private func acceptOne() {
        let stream = ByteStream.tcp()
        guard uv_accept(andiron_stream(handle), stream.stream) == 0 else { return }
        stream.disableDelay()
        accept(stream)
    }

    /// Stops listening; the port is free at once.
    public func close() {
        guard !isClosed else { return }
        isClosed = true
        handle.pointee.data = nil
        uv_close(andiron_handle(handle)) { closed in closed?.deallocate() }
    }
}

extension ByteStream {
    /// Connects to a TCP host (name or literal) and port.
    public static func connect(host: String, port: Int) async throws(SystemError) -> ByteStream {
        let found = await offload { resolve(host: host, port: port) }
        guard let found else { throw SystemError("getaddrinfo", Int32(UV_ENOENT.rawValue), host) }
        let stream = ByteStream.tcp()
        let status: Int32 = await withUnsafeContinuation { continuation in
            var storage = found
            let request = ConnectRequest.make(continuation)
            let status = withUnsafePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    uv_tcp_connect(
                        request, andiron_handle(stream.stream).withMemoryRebound(to: uv_tcp_t.self, capacity: 1) { $0 },
                        $0, ConnectRequest.callback)
                }
            }
            if status != 0 { ConnectRequest.fail(request, status) }
        }
        guard status == 0 else { throw SystemError("connect", status, "\(host):\(port)") }
        stream.disableDelay()
        return stream
    }

    /// Connects to a Unix socket.
    public static func connect(unixPath path: String) async throws(SystemError) -> ByteStream {
        let stream = ByteStream.pipe()
        let status: Int32 = await withUnsafeContinuation { continuation in
            let request = ConnectRequest.make(continuation)
            uv_pipe_connect(
                request, andiron_handle(stream.stream).withMemoryRebound(to: uv_pipe_t.self, capacity: 1) { $0 },
                path, ConnectRequest.callback)
        }
        guard status == 0 else { throw SystemError("connect", status, path) }
        return stream
    }
}

/// The first address of a name; run off the loop.
private func resolve(host: String, port: Int) -> sockaddr_storage? {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, String(port), &hints, &list) == 0, let first = list else { return nil }
    defer { freeaddrinfo(list) }
    var storage = sockaddr_storage()
    withUnsafeMutableBytes(of: &storage) {
        $0.copyMemory(from: UnsafeRawBufferPointer(start: first.pointee.ai_addr, count: Int(first.pointee.ai_addrlen)))
    }
    return storage
}

/// One pending connect and the task that waits for it.
private final class ConnectRequest {
    let continuation: UnsafeContinuation<Int32, Never>

    init(_ continuation: UnsafeContinuation<Int32, Never>) { self.continuation = continuation }

    static let callback: uv_connect_cb = { request, status in
        guard let request else { return }
        ConnectRequest.fail(request, status)
    }

    static func make(_ continuation: UnsafeContinuation<Int32, Never>) -> UnsafeMutablePointer<uv_connect_t> {
        let request = UnsafeMutablePointer<uv_connect_t>.allocate(capacity: 1)
        // SAFETY: released exactly once, in `fail`.
        request.pointee.data = Unmanaged.passRetained(ConnectRequest(continuation)).toOpaque()
        return request
    }

    static func fail(_ request: UnsafeMutablePointer<uv_connect_t>, _ status: Int32) {
        guard let data = request.pointee.data else { return }
        let me = Unmanaged<ConnectRequest>.fromOpaque(data).takeRetainedValue()  // SAFETY: see `make`.
        request.deallocate()
        me.continuation.resume(returning: status)
    }
}
