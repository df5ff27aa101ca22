/// Outgoing HTTP by libcurl's multi interface, driven by the loop: curl asks for readiness and a timer.
internal import CCurl
public import EventLoops

/// One request.
public struct HTTPClientRequest: Sendable {
    public var method: String
    public var url: String
    public var headers: [(name: String, value: String)]
    public var body: [UInt8]
    /// For the whole exchange.
    public var timeout: Duration

    public init(
        method: String = "GET", url: String, headers: [(name: String, value: String)] = [], body: [UInt8] = [],
        timeout: Duration = .seconds(60)
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.timeout = timeout
    }
}

/// One response, whole.
public struct HTTPClientResponse: Sendable {
    public let status: Int
    /// Names in lower case.
    public let headers: [(name: String, value: String)]
    public let body: [UInt8]

    /// The first value of a header; `name` in lower case.
    public func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
}

/// Sends requests; connections are kept and shared.
@EventLoop
public final class HTTPClient {
    private let multi: OpaquePointer
    private var timer: LoopTimer?
    private var polls: [Int32: PollHandle] = [:]
    private var transfers: [UnsafeMutableRawPointer: Transfer] = [:]

    /// Bytes of a response body that are kept; one more ends the transfer.
    public static let responseByteLimit = 512 << 20

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
        curl_multi_cleanup(UnsafeMutableRawPointer(multi))
    }

    /// Sends a request and waits for the whole response.
    public func send(_ request: HTTPClientRequest) async throws(HTTPClientError) -> HTTPClientResponse {
        let result = await withUnsafeContinuation { (continuation: UnsafeContinuation<TransferResult, Never>) in
            guard let easy = curl_easy_init() else {
                let error = HTTPClientError(number: 27, url: request.url, reason: "out of memory")
                return continuation.resume(returning: .failure(error))
            }
            let transfer = Transfer(request: request, easy: easy, continuation: continuation)
            transfers[easy] = transfer
            curl_multi_add_handle(UnsafeMutableRawPointer(multi), easy)
        }
        return try result.get()
    }

    fileprivate typealias TransferResult = Result<HTTPClientResponse, HTTPClientError>

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
            let code = andiron_message_result(message)
            curl_multi_remove_handle(UnsafeMutableRawPointer(multi), easy)
            transfers.removeValue(forKey: easy)?.finish(code)
        }
    }
}

/// One exchange under way.
@EventLoop
private final class Transfer {
    private let request: HTTPClientRequest
    private let easy: UnsafeMutableRawPointer
    private let continuation: UnsafeContinuation<HTTPClient.TransferResult, Never>
    private var headerList: UnsafeMutablePointer<curl_slist>?
    private var body: [UInt8] = []
    private var head: [UInt8] = []

    init(
        request: HTTPClientRequest, easy: UnsafeMutableRawPointer,
        continuation: UnsafeContinuation<HTTPClient.TransferResult, Never>
    ) {
        self.request = request
        self.easy = easy
        self.continuation = continuation
        for header in request.headers { headerList = curl_slist_append(headerList, "\(header.name): \(header.value)") }
        headerList = curl_slist_append(headerList, "Expect:")
        andiron_easy_text(easy, CURLOPT_URL, request.url)
        andiron_easy_text(easy, CURLOPT_CUSTOMREQUEST, request.method)
        andiron_easy_long(easy, CURLOPT_NOSIGNAL, 1)
        andiron_easy_long(easy, CURLOPT_TIMEOUT_MS, Int(request.timeout.wholeMilliseconds))
        andiron_easy_pointer(easy, CURLOPT_HTTPHEADER, headerList)
        if request.method == "HEAD" { andiron_easy_long(easy, CURLOPT_NOBODY, 1) }
        if !request.body.isEmpty || ["POST", "PUT", "PATCH"].contains(request.method) {
            andiron_easy_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, Int(request.body.count))
            _ = request.body.withUnsafeBytes { bytes in
                // COPYPOSTFIELDS makes curl keep the bytes itself.
                andiron_easy_pointer(easy, CURLOPT_COPYPOSTFIELDS, UnsafeMutableRawPointer(mutating: bytes.baseAddress))
            }
        }
        let me = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: the client keeps the transfer until it is done.
        andiron_easy_pointer(easy, CURLOPT_WRITEDATA, me)
        andiron_easy_pointer(easy, CURLOPT_HEADERDATA, me)
        andiron_easy_write(easy, CURLOPT_WRITEFUNCTION) { data, size, count, context in
            Transfer.take(data, size * count, context) { $0.body.append(contentsOf: $1) }
        }
        andiron_easy_write(easy, CURLOPT_HEADERFUNCTION) { data, size, count, context in
            Transfer.take(data, size * count, context) { $0.head.append(contentsOf: $1) }
        }
    }

    private nonisolated static func take(
        _ data: UnsafeMutablePointer<CChar>?, _ count: Int, _ context: UnsafeMutableRawPointer?,
        _ keep: @EventLoop (Transfer, UnsafeRawBufferPointer) -> Void
    ) -> Int {
        guard let data, let context else { return 0 }
        // SAFETY: curl runs on the loop, and lends the memory for the length of the call.
        nonisolated(unsafe) let bytes = UnsafeRawBufferPointer(start: data, count: count)
        let me = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()  // SAFETY: see init.
        return EventLoop.assumeIsolated {
            guard me.body.count + count <= HTTPClient.responseByteLimit else { return 0 }
            keep(me, bytes)
            return count
        }
    }

    func finish(_ code: CURLcode) {
        var status = 0
        andiron_info_long(easy, CURLINFO_RESPONSE_CODE, &status)
        curl_easy_cleanup(easy)
        curl_slist_free_all(headerList)
        guard code == CURLE_OK else {
            let reason = String(cString: curl_easy_strerror(code))
            continuation.resume(
                returning: .failure(HTTPClientError(number: code.rawValue, url: request.url, reason: reason)))
            return
        }
        continuation.resume(returning: .success(HTTPClientResponse(status: status, headers: headers(), body: body)))
    }

    /// The fields of the last head received (earlier ones are `100 Continue`).
    private func headers() -> [(name: String, value: String)] {
        let heads = String(decoding: head, as: UTF8.self).split(separator: "\r\n\r\n")
        return (heads.last ?? "").split(separator: "\r\n").dropFirst().compactMap { line in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            return (line[..<colon].lowercased(), String(line[line.index(after: colon)...].drop { $0 == " " }))
        }
    }
}
