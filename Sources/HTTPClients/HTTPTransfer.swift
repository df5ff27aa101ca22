/// One exchange under way: what curl is told, and what it hands over.
internal import CCurl
public import EventLoops
internal import Glibc

/// An exchange that can be resumed and cancelled.
@EventLoop
public final class HTTPTransfer {
    private let request: HTTPClientRequest
    private let easy: UnsafeMutableRawPointer
    private let continuation: UnsafeContinuation<HTTPClient.TransferResult, Never>
    private unowned let client: HTTPClient
    private var receiver: (any HTTPBodyReceiver)?
    private var headerList: UnsafeMutablePointer<curl_slist>?
    private let errorText: UnsafeMutablePointer<CChar>
    private var body: [UInt8] = []
    private var head: [UInt8] = []
    private var receiverTakesBody: Bool?
    private var file: Int32 = -1
    private var filePosition = 0

    /// Bytes of all response heads of an exchange.
    private static let headByteLimit = 256 << 10

    init(
        request: HTTPClientRequest, easy: UnsafeMutableRawPointer, receiver: (any HTTPBodyReceiver)?,
        client: HTTPClient, continuation: UnsafeContinuation<HTTPClient.TransferResult, Never>
    ) {
        self.request = request
        self.easy = easy
        self.receiver = receiver
        self.client = client
        self.continuation = continuation
        errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
        errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        for header in request.headers { headerList = curl_slist_append(headerList, "\(header.name): \(header.value)") }
        headerList = curl_slist_append(headerList, "Expect:")
        andiron_easy_text(easy, CURLOPT_URL, request.url)
        andiron_easy_text(easy, CURLOPT_CUSTOMREQUEST, request.method)
        andiron_easy_text(easy, CURLOPT_PROTOCOLS_STR, "http,https")
        andiron_easy_long(easy, CURLOPT_NOSIGNAL, 1)
        andiron_easy_long(easy, CURLOPT_TIMEOUT_MS, Int(request.timeout.wholeMilliseconds))
        andiron_easy_long(easy, CURLOPT_CONNECTTIMEOUT_MS, Int(request.connectTimeout.wholeMilliseconds))
        andiron_easy_pointer(easy, CURLOPT_HTTPHEADER, headerList)
        andiron_easy_pointer(easy, CURLOPT_ERRORBUFFER, errorText)
        if request.method == "HEAD" { andiron_easy_long(easy, CURLOPT_NOBODY, 1) }
        if request.followsRedirects { followRedirects() }
        if request.stallTimeout > .zero {
            andiron_easy_long(easy, CURLOPT_LOW_SPEED_LIMIT, 1000)
            andiron_easy_long(easy, CURLOPT_LOW_SPEED_TIME, Int(request.stallTimeout.wholeMilliseconds / 1000))
        }
        if let authority = request.certificateAuthorityFile { andiron_easy_text(easy, CURLOPT_CAINFO, authority) }
        let me = Unmanaged.passUnretained(self).toOpaque()  // SAFETY: the client keeps the transfer until it is done.
        setBody(me)
        setReceiving(me)
    }

    private func followRedirects() {
        andiron_easy_long(easy, CURLOPT_FOLLOWLOCATION, 1)
        andiron_easy_long(easy, CURLOPT_MAXREDIRS, 10)
        andiron_easy_long(easy, CURLOPT_UNRESTRICTED_AUTH, 0)
        let isSecure = request.url.lowercased().hasPrefix("https:")
        andiron_easy_text(easy, CURLOPT_REDIR_PROTOCOLS_STR, isSecure ? "https" : "http,https")
    }

    private func setBody(_ me: UnsafeMutableRawPointer) {
        if let upload = request.upload {
            file = open(upload.path, O_RDONLY | O_CLOEXEC)
            andiron_easy_long(easy, CURLOPT_UPLOAD, 1)
            andiron_easy_long(easy, CURLOPT_UPLOAD_BUFFERSIZE, 512 << 10)
            andiron_easy_offset(easy, CURLOPT_INFILESIZE_LARGE, Int(upload.byteCount))
            andiron_easy_pointer(easy, CURLOPT_READDATA, me)
            andiron_easy_write(easy, CURLOPT_READFUNCTION) { data, size, count, context in
                guard let data, let context else { return Int(CURL_READFUNC_ABORT) }
                let me = Unmanaged<HTTPTransfer>.fromOpaque(context).takeUnretainedValue()  // SAFETY: see init.
                // SAFETY: curl runs on the loop, and lends the memory for the length of the call.
                nonisolated(unsafe) let memory = UnsafeMutableRawBufferPointer(start: data, count: size * count)
                return EventLoop.assumeIsolated { me.readFile(into: memory) }
            }
            andiron_easy_pointer(easy, CURLOPT_SEEKDATA, me)
            andiron_easy_seek(easy) { context, offset, origin in
                guard let context, origin == SEEK_SET else { return CURL_SEEKFUNC_CANTSEEK }
                let me = Unmanaged<HTTPTransfer>.fromOpaque(context).takeUnretainedValue()  // SAFETY: see init.
                EventLoop.assumeIsolated { me.filePosition = Int(offset) }
                return CURL_SEEKFUNC_OK
            }
        } else if !request.body.isEmpty || ["POST", "PUT", "PATCH"].contains(request.method) {
            andiron_easy_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, Int(request.body.count))
            _ = request.body.withUnsafeBytes { bytes in
                // COPYPOSTFIELDS makes curl keep the bytes itself.
                andiron_easy_pointer(easy, CURLOPT_COPYPOSTFIELDS, UnsafeMutableRawPointer(mutating: bytes.baseAddress))
            }
        }
    }

    private func setReceiving(_ me: UnsafeMutableRawPointer) {
        if receiver != nil { andiron_easy_long(easy, CURLOPT_BUFFERSIZE, 256 << 10) }
        andiron_easy_pointer(easy, CURLOPT_WRITEDATA, me)
        andiron_easy_pointer(easy, CURLOPT_HEADERDATA, me)
        andiron_easy_write(easy, CURLOPT_WRITEFUNCTION) { data, size, count, context in
            HTTPTransfer.take(data, size * count, context) { $0.takeBody($1) }
        }
        andiron_easy_write(easy, CURLOPT_HEADERFUNCTION) { data, size, count, context in
            HTTPTransfer.take(data, size * count, context) { me, bytes in
                guard me.head.count + bytes.count <= HTTPTransfer.headByteLimit else { return 0 }
                me.head.append(contentsOf: bytes)
                return bytes.count
            }
        }
    }

    private nonisolated static func take(
        _ data: UnsafeMutablePointer<CChar>?, _ count: Int, _ context: UnsafeMutableRawPointer?,
        _ keep: @EventLoop (HTTPTransfer, UnsafeRawBufferPointer) -> Int
    ) -> Int {
        guard let data, let context else { return 0 }
        // SAFETY: curl runs on the loop, and lends the memory for the length of the call.
        nonisolated(unsafe) let bytes = UnsafeRawBufferPointer(start: data, count: count)
        let me = Unmanaged<HTTPTransfer>.fromOpaque(context).takeUnretainedValue()  // SAFETY: see init.
        return EventLoop.assumeIsolated { keep(me, bytes) }
    }

    private func takeBody(_ bytes: UnsafeRawBufferPointer) -> Int {
        if let receiver {
            let takes = receiverTakesBody ?? receiver.takesBody(of: response(body: []))
            receiverTakesBody = takes
            if takes {
                switch receiver.receive(bytes) {
                case .more: return bytes.count
                case .pause: return Int(CURL_WRITEFUNC_PAUSE)
                case .stop: return 0
                }
            }
        }
        guard body.count + bytes.count <= request.responseByteLimit else { return 0 }
        body.append(contentsOf: bytes)
        return bytes.count
    }

    private func readFile(into memory: UnsafeMutableRawBufferPointer) -> Int {
        guard let upload = request.upload, file >= 0 else { return Int(CURL_READFUNC_ABORT) }
        let count = min(memory.count, upload.byteCount - filePosition)
        if count <= 0 { return 0 }
        let done = pread(file, memory.baseAddress, count, off_t(upload.offset + filePosition))
        guard done > 0 else { return Int(CURL_READFUNC_ABORT) }
        filePosition += done
        return done
    }

    /// Goes on after ``HTTPBodyFlow/pause``; not from inside the receiver. Harmless when it has ended.
    public func resume() {
        if !isFinished { curl_easy_pause(easy, CURLPAUSE_CONT) }
    }

    /// Ends the exchange with an error; not from inside the receiver. Harmless when it has ended.
    public func cancel() {
        guard !isFinished else { return }
        client.end(easy, CURLE_ABORTED_BY_CALLBACK)
    }

    private var isFinished = false

    func finish(_ code: CURLcode) {
        isFinished = true
        let answer = response(body: body)
        let text = String(cString: errorText)
        curl_easy_cleanup(easy)
        curl_slist_free_all(headerList)
        errorText.deallocate()
        if file >= 0 { close(file) }
        receiver = nil
        guard code == CURLE_OK else {
            let reason = text.isEmpty ? String(cString: curl_easy_strerror(code)) : text
            continuation.resume(
                returning: .failure(
                    HTTPClientError(
                        number: code.rawValue, url: request.url, reason: reason, status: answer.status)))
            return
        }
        continuation.resume(returning: .success(answer))
    }

    private func response(body: [UInt8]) -> HTTPClientResponse {
        var status = 0
        andiron_info_long(easy, CURLINFO_RESPONSE_CODE, &status)
        var url: UnsafeMutableRawPointer?
        andiron_info_pointer(easy, CURLINFO_EFFECTIVE_URL, &url)
        let effective = url.map { String(cString: $0.assumingMemoryBound(to: CChar.self)) } ?? request.url
        return HTTPClientResponse(status: status, headers: headers(), body: body, url: effective)
    }

    /// The fields of the last head received (earlier ones are redirects and `100 Continue`).
    private func headers() -> [(name: String, value: String)] {
        let heads = String(decoding: head, as: UTF8.self).split(separator: "\r\n\r\n")
        return (heads.last ?? "").split(separator: "\r\n").dropFirst().compactMap { line in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            return (line[..<colon].lowercased(), String(line[line.index(after: colon)...].drop { $0 == " " }))
        }
    }
}
