/// Outgoing HTTP by libcurl's multi interface, driven by the loop: curl asks for readiness and a timer.
internal import CCurl
public import EventLoops

/// Sends requests; connections are kept and shared.
@EventLoop
public final class HTTPClient {
    private let multi: OpaquePointer
    private var timer: LoopTimer?
    private var polls: [Int32: PollHandle] = [:]
    private var transfers: [UnsafeMutableRawPointer: HTTPTransfer] = [:]

    /// Bytes of a response body that are kept, unless a request says otherwise.
    public nonisolated static let responseByteLimit = 512 << 20

    public init() {
        curl_global_init(Int(CURL_GLOBAL_DEFAULT))
        // curl_multi_init fails only without memory, and then nothing else works either.
        guard let multi = curl_multi_init() else { preconditionFailure("curl_multi_init has no memory") }
        self.multi = OpaquePointer(multi)
        timer = LoopTimer { [unowned self] in self.act(-1, 0) }
        // SAFETY: the callbacks end with curl_multi_cleanup in deinit.
        let me = Unmanaged.passUnretained(self).toOpaque()
        andiron_multi_socket(
            multi,
            { _, socket, what, data, _ in
                guard let data else { return 0 }
                let me = Unmanaged<HTTPClient>.fromOpaque(data).takeUnretainedValue()  // SAFETY: see init.
                EventLoop.assumeIsolated { me.watch(socket, what) }
                return 0
            }, me)
        andiron_multi_timer(
            multi,
            { _, milliseconds, data in
                guard let data else { return 0 }
                let me = Unmanaged<HTTPClient>.fromOpaque(data).takeUnretainedValue()  // SAFETY: see init.
                EventLoop.assumeIsolated {
                    // curl must not be called from inside this callback, so even 0 goes through the timer.
                    if milliseconds < 0 {
                        me.timer?.stop()
                    } else {
                        me.timer?.start(after: .milliseconds(milliseconds))
                    }
                }
                return 0
            }, me)
    }

    isolated deinit {
        for easy in transfers.keys {
            curl_multi_remove_handle(UnsafeMutableRawPointer(multi), easy)
            curl_easy_cleanup(easy)
        }
        curl_multi_cleanup(UnsafeMutableRawPointer(multi))
    }

    /// Sends a request and waits for the whole response, or for its head when a receiver takes the body.
    ///
    /// - Parameters:
    ///   - receiver: takes the body piece by piece; without one the body is in the response.
    ///   - started: is handed the exchange, to resume or cancel it.
    public func send(
        _ request: HTTPClientRequest, receiver: (any HTTPBodyReceiver)? = nil,
        started: (@EventLoop (HTTPTransfer) -> Void)? = nil
    ) async throws(HTTPClientError) -> HTTPClientResponse {
        let result = await withUnsafeContinuation { (continuation: UnsafeContinuation<TransferResult, Never>) in
            guard let easy = curl_easy_init() else {
                let error = HTTPClientError(number: 27, url: request.url, reason: "out of memory")
                return continuation.resume(returning: .failure(error))
            }
            let transfer = HTTPTransfer(
                request: request, easy: easy, receiver: receiver, client: self, continuation: continuation)
            transfers[easy] = transfer
            curl_multi_add_handle(UnsafeMutableRawPointer(multi), easy)
            started?(transfer)
        }
        return try result.get()
    }

    typealias TransferResult = Result<HTTPClientResponse, HTTPClientError>

    /// Takes an exchange out of curl's hands and answers it with `code`.
    func end(_ easy: UnsafeMutableRawPointer, _ code: CURLcode) {
        guard let transfer = transfers.removeValue(forKey: easy) else { return }
        curl_multi_remove_handle(UnsafeMutableRawPointer(multi), easy)
        transfer.finish(code)
    }

    private func watch(_ socket: Int32, _ what: Int32) {
        if what == CURL_POLL_REMOVE {
            polls[socket] = nil
            return
        }
        if polls[socket] == nil {
            polls[socket] = try? PollHandle(descriptor: socket) { [unowned self] readable, writable in
                act(socket, (readable ? CURL_CSELECT_IN : 0) | (writable ? CURL_CSELECT_OUT : 0))
            }
        }
        polls[socket]?.watch(
            readable: what == CURL_POLL_IN || what == CURL_POLL_INOUT,
            writable: what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
    }

    private func act(_ socket: Int32, _ events: Int32) {
        var running: Int32 = 0
        curl_multi_socket_action(UnsafeMutableRawPointer(multi), socket, events, &running)
        var left: Int32 = 0
        while let message = curl_multi_info_read(UnsafeMutableRawPointer(multi), &left) {
            guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle else { continue }
            end(easy, andiron_message_result(message))
        }
    }
}
