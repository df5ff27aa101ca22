/// A connected byte stream on the loop (TCP, Unix socket, or pipe; plain or TLS) with writes coalesced per turn.
internal import CUV
internal import Glibc

/// What a stream tells its owner. The owner must keep the stream alive, and itself, while reading.
@EventLoop
public protocol ByteStreamReader: AnyObject {
    /// Where the next bytes should go, or nil for the loop's shared buffer.
    ///
    /// The memory must stay valid until the matching ``streamDidRead(_:)``, which follows at once.
    func streamReadDestination() -> UnsafeMutableRawBufferPointer?
    /// Bytes arrived; the memory is borrowed for the length of the call.
    func streamDidRead(_ bytes: UnsafeRawBufferPointer)
    /// The other side closed (nil) or the stream failed; nothing more will be read.
    func streamDidEnd(_ error: SystemError?)
    /// All queued bytes have been handed to the system after a write had to wait.
    func streamDidDrain()
}

extension ByteStreamReader {
    public func streamReadDestination() -> UnsafeMutableRawBufferPointer? { nil }
    public func streamDidDrain() {}
}

/// Reads and writes bytes; closed when dropped.
@EventLoop
public final class ByteStream {
    private let handle: UnsafeMutableRawPointer
    private unowned(unsafe) var reader: (any ByteStreamReader)?
    private var tail: [UInt8] = []
    private var queue: [[UInt8]] = []
    private var inFlight = 0
    private var isDirty = false
    private var isEnding = false
    private var written: (@EventLoop () -> Void)?
    /// Set once by ``startTLS(_:serverName:timeout:)``; bytes then go through it (ByteStream+TLS.swift).
    var tls: TLSSession?
    /// What ended the other side, kept while its last bytes are still to be delivered.
    var pendingEnd: SystemError??
    /// True after ``close()``.
    public private(set) var isClosed = false

    /// Chunks at least this large are written without being copied.
    private static let copyLimit = 4096
    /// An idle stream gives back a larger output buffer than this.
    private static let idleCapacity = 4096
    private static let sharedBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)

    private init(handle: UnsafeMutableRawPointer) {
        self.handle = handle
        handle.assumingMemoryBound(to: uv_handle_t.self).pointee.data =
            Unmanaged.passUnretained(self).toOpaque()  // SAFETY: cleared when closed, at the latest in deinit.
    }

    isolated deinit { close() }

    var stream: UnsafeMutablePointer<uv_stream_t> { andiron_stream(handle) }

    static func tcp() -> ByteStream {
        let tcp = UnsafeMutablePointer<uv_tcp_t>.allocate(capacity: 1)
        uv_tcp_init(EventLoop.executor.loop, tcp)
        return ByteStream(handle: UnsafeMutableRawPointer(tcp))
    }

    static func pipe() -> ByteStream {
        let pipe = UnsafeMutablePointer<uv_pipe_t>.allocate(capacity: 1)
        uv_pipe_init(EventLoop.executor.loop, pipe, 0)
        return ByteStream(handle: UnsafeMutableRawPointer(pipe))
    }

    func disableDelay() {
        uv_tcp_nodelay(handle.assumingMemoryBound(to: uv_tcp_t.self), 1)
    }

    /// Sets the kernel's buffers; large frames then pass in fewer turns.
    public func setSocketBuffers(byteCount: Int32) {
        var size = byteCount
        uv_send_buffer_size(andiron_handle(handle), &size)
        size = byteCount
        uv_recv_buffer_size(andiron_handle(handle), &size)
    }

    /// Starts delivering bytes to `reader`, which is not retained.
    public func startReading(to reader: any ByteStreamReader) {
        guard !isClosed else { return }
        self.reader = reader
        readFromSystem()
        if let tls {
            // Bytes may have arrived, sealed, while nobody read.
            tls.reader = reader
            markDirty()
        }
    }

    func readFromSystem() {
        uv_read_start(
            stream,
            { handle, suggested, buffer in
                guard let data = handle?.pointee.data, let buffer else { return }
                // SAFETY: `data` is the stream object until it is closed.
                let me = Unmanaged<ByteStream>.fromOpaque(data).takeUnretainedValue()
                let memory = EventLoop.assumeIsolated(me) {
                    ($0.tls == nil ? $0.reader?.streamReadDestination() : nil) ?? ByteStream.sharedBuffer
                }
                buffer.pointee = uv_buf_init(
                    memory.baseAddress?.assumingMemoryBound(to: CChar.self), UInt32(memory.count))
            },
            { handle, count, buffer in
                guard let data = handle?.pointee.data, count != 0 else { return }
                // SAFETY: as above.
                let me = Unmanaged<ByteStream>.fromOpaque(data).takeUnretainedValue()
                // An end that comes together with the last bytes has no buffer.
                EventLoop.assumeIsolated((me, count, UnsafeRawPointer(buffer?.pointee.base))) {
                    $0.0.received($0.1, $0.2)
                }
            })
    }

    /// Stops delivering bytes; ``startReading(to:)`` resumes.
    public func stopReading() {
        guard !isClosed else { return }
        tls?.reader = nil
        uv_read_stop(stream)
    }

    private func received(_ count: Int, _ base: UnsafeRawPointer?) {
        if let tls { return receivedSealed(tls, count, base) }
        guard let reader else { return }
        if count > 0 {
            reader.streamDidRead(UnsafeRawBufferPointer(start: base, count: count))
        } else {
            uv_read_stop(stream)
            reader.streamDidEnd(count == Int(UV_EOF.rawValue) ? nil : SystemError("read", Int32(count)))
        }
    }

    /// Bytes accepted by ``write(_:)`` and not yet taken by the system.
    public var bufferedByteCount: Int { tail.count + queue.reduce(0) { $0 + $1.count } + inFlight }

    /// Appends to the output in place; what a turn appends leaves in one system call at its end.
    @inline(__always)
    public func output(_ append: (inout [UInt8]) -> Void) {
        append(&tail)
        markDirty()
    }

    /// Queues bytes; large ones are kept, not copied.
    public func write(_ bytes: [UInt8]) {
        if bytes.count < Self.copyLimit {
            tail.append(contentsOf: bytes)
        } else {
            if !tail.isEmpty {
                queue.append(tail)
                tail = []
            }
            queue.append(bytes)
        }
        markDirty()
    }

    func markDirty() {
        guard !isDirty, !isClosed else { return }
        isDirty = true
        EventLoop.executor.atTurnEnd(self)
    }

    func turnEnded() {
        isDirty = false
        guard !isClosed else { return }
        if let tls { return sendSealed(tls) }
        if queue.isEmpty, inFlight == 0, !tail.isEmpty, flushTail() {
            if isEnding { end() }
            return
        }
        var chunks = queue
        queue = []
        if !tail.isEmpty { chunks.append(tail) }
        guard !chunks.isEmpty else { return }
        let written = inFlight == 0 ? tryWrite(chunks) : 0
        let total = chunks.reduce(0) { $0 + $1.count }
        if written == total {
            if tail.capacity > Self.idleCapacity { tail = [] } else { tail.removeAll(keepingCapacity: true) }
            if isEnding { end() }
            return
        }
        tail = []
        writeLater(chunks, skipping: written)
    }

    /// The usual case, one small answer: a single system call without any allocation.
    private func flushTail() -> Bool {
        let written = tail.withUnsafeMutableBytes { bytes in
            var buffer = uv_buf_init(bytes.baseAddress?.assumingMemoryBound(to: CChar.self), UInt32(bytes.count))
            return Int(uv_try_write(stream, &buffer, 1))
        }
        if written == tail.count {
            if tail.capacity > Self.idleCapacity { tail = [] } else { tail.removeAll(keepingCapacity: true) }
            return true
        }
        if written > 0 { tail.removeFirst(written) }
        return false
    }

    /// The turn's end of a TLS stream: what was written leaves as records, what arrived is delivered.
    private func sendSealed(_ tls: TLSSession) {
        if tls.isEstablished {
            for chunk in queue { tls.seal(chunk) }
            queue = []
            tls.seal(tail)
            if tail.capacity > Self.idleCapacity { tail = [] } else { tail.removeAll(keepingCapacity: true) }
            if isEnding { tls.sayGoodbye() }
        }
        tls.withOutput { records in
            var sent = 0
            if inFlight == 0 {
                var buffer = uv_buf_init(
                    UnsafeMutableRawPointer(mutating: records.baseAddress)?.assumingMemoryBound(to: CChar.self),
                    UInt32(records.count))
                sent = max(0, Int(uv_try_write(stream, &buffer, 1)))
            }
            if sent < records.count {
                writeLater([Array(records[sent...])], skipping: 0)
            }
        }
        if isEnding, tls.hasSaidGoodbye, inFlight == 0 { end() }
        deliverOpened(tls)
    }

    private func tryWrite(_ chunks: [[UInt8]]) -> Int {
        withBuffers(of: chunks, skipping: 0) { buffers in
            var buffers = buffers
            let status = uv_try_write(stream, &buffers, UInt32(buffers.count))
            return status > 0 ? Int(status) : 0
        }
    }

    private func writeLater(_ chunks: [[UInt8]], skipping offset: Int) {
        let request = WriteRequest(stream: self, chunks: chunks)
        request.byteCount = chunks.reduce(0) { $0 + $1.count } - offset
        inFlight += request.byteCount
        let status = withBuffers(of: chunks, skipping: offset) { buffers in
            var buffers = buffers
            let raw = UnsafeMutablePointer<uv_write_t>.allocate(capacity: 1)
            // SAFETY: the retained request keeps the chunks, and so the buffers' memory, until the callback.
            raw.pointee.data = Unmanaged.passRetained(request).toOpaque()
            let status = uv_write(raw, stream, &buffers, UInt32(buffers.count)) { raw, status in
                guard let raw, let data = raw.pointee.data else { return }
                let request = Unmanaged<WriteRequest>.fromOpaque(data).takeRetainedValue()  // SAFETY: see above.
                raw.deallocate()
                EventLoop.assumeIsolated(request) { $0.finished() }
            }
            if status != 0 {
                Unmanaged.passUnretained(request).release()  // SAFETY: the callback will not come.
                raw.deallocate()
            }
            return status
        }
        if status != 0 { inFlight -= request.byteCount }
    }

    fileprivate func didWrite(_ byteCount: Int) {
        inFlight -= byteCount
        guard inFlight == 0, !isClosed else { return }
        if isEnding, queue.isEmpty, tail.isEmpty, tls?.hasSaidGoodbye != false { return end() }
        reader?.streamDidDrain()
    }

    private func withBuffers<R>(of chunks: [[UInt8]], skipping offset: Int, _ body: ([uv_buf_t]) -> R) -> R {
        var skip = offset
        var buffers: [uv_buf_t] = []
        for chunk in chunks {
            if skip >= chunk.count {
                skip -= chunk.count
                continue
            }
            chunk.withUnsafeBytes { bytes in
                // SAFETY: an array's heap storage does not move while something retains the array unchanged;
                // the caller (or the write request) does until libuv has taken the bytes.
                let base = UnsafeMutableRawPointer(mutating: bytes.baseAddress)?.advanced(by: skip)
                buffers.append(
                    uv_buf_init(base?.assumingMemoryBound(to: CChar.self), UInt32(bytes.count - skip)))
            }
            skip = 0
        }
        return withExtendedLifetime(chunks) { body(buffers) }
    }

    /// Closes after everything queued has been written.
    public func finish() { finishWriting { [weak self] in self?.close() } }

    /// Closes the writing side after everything queued has been written, and tells when the other side can
    /// have seen it: reading goes on until the owner closes.
    public func finishWriting(_ written: @escaping @EventLoop () -> Void) {
        self.written = written
        isEnding = true
        if tls != nil { return markDirty() }
        if queue.isEmpty, tail.isEmpty, inFlight == 0, !isDirty { end() }
    }

    private func end() {
        isEnding = false
        let request = UnsafeMutablePointer<uv_shutdown_t>.allocate(capacity: 1)
        let status = uv_shutdown(request, stream) { request, _ in request?.deallocate() }
        if status != 0 { request.deallocate() }
        let done = written
        written = nil
        done?()
    }

    /// Closes at once; queued bytes are dropped. Harmless when closed.
    public func close() {
        guard !isClosed else { return }
        isClosed = true
        reader = nil
        if let tls {
            tls.sayGoodbye()
            if inFlight == 0 { sendLastRecords(tls) }
            tls.finish(.closed(peer: tls.peer))
        }
        let raw = handle.assumingMemoryBound(to: uv_handle_t.self)
        raw.pointee.data = nil
        uv_close(raw) { closed in closed?.deallocate() }
    }
}

/// Keeps the memory of one asynchronous write alive.
@EventLoop
private final class WriteRequest {
    private weak var stream: ByteStream?
    private let chunks: [[UInt8]]
    var byteCount = 0

    init(stream: ByteStream, chunks: [[UInt8]]) {
        self.stream = stream
        self.chunks = chunks
    }

    func finished() { stream?.didWrite(byteCount) }
}
