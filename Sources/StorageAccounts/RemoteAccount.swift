/// Another storage service over its REST API: blobs read, written and polled, as the real host does it.
internal import Diagnostics
public import EventLoops
public import FunctionApps
internal import HTTPClients
internal import HTTPMessages

/// One account of a service. Receipts are the empty blobs of the real host, in its container.
@EventLoop
public final class RemoteAccount: BlobStore {
    public let accountName: String
    private let connection: StorageConnection
    let hostID: @EventLoop () -> String
    private let client = HTTPClient()
    private var observers: [any BlobObserver] = []
    private var polling: Set<String> = []
    private var timer: LoopTimer?
    /// Receipts known to be complete, so that each is asked for once.
    private var completed: Set<ReceiptKey> = []
    /// Functions whose receipts have been listed: a start asks for pages of them, not for each.
    private var listed: Set<String> = []
    /// Where a container's scan goes on that did not fit into one cycle.
    private var continuations: [String: String] = [:]

    /// How often containers are looked at, and how many blobs each time: the real host's numbers.
    static let pollInterval = Duration.seconds(10)
    static let blobsPerCycle = 10_000
    /// Receipts kept in memory.
    static let completedLimit = 200_000
    static let hostContainer = "azure-webjobs-hosts"

    public init(connection: StorageConnection, hostID: @escaping @EventLoop () -> String) {
        self.connection = connection
        self.hostID = hostID
        accountName = connection.accountName
        timer = LoopTimer { [unowned self] in self.pollAll() }
    }

    public func url(of address: BlobAddress) -> String {
        "\(connection.blobEndpoint)/\(percentEncoded(path: address.description))"
    }

    // MARK: Requests

    /// Sends a signed request; any status but those of `accepting` is an error.
    func send(
        _ method: String, _ path: String, query: [(name: String, value: String)] = [],
        headers: [(name: String, value: String)] = [], body: [UInt8] = [], toQueues: Bool = false, accepting: Set<Int>
    ) async throws(StorageError) -> HTTPClientResponse {
        let endpoint = toQueues ? connection.queueEndpoint : connection.blobEndpoint
        var headers = headers + [("x-ms-version", "2021-12-02"), ("x-ms-date", httpDate(wallClockSeconds()))]
        var text = query.map { "\($0.name)=\(percentEncoded(path: $0.value).replacing("/", with: "%2F"))" }
        switch connection.credential {
        case .sharedKey(let key):
            let signed = SignedRequest(
                method: method, path: Self.path(of: endpoint) + path, query: query, headers: headers,
                byteCount: body.count)
            let signature = signed.signature(account: accountName, key: key)
            headers.append(("Authorization", "SharedKey \(accountName):\(signature)"))
        case .signature(let signature): text.append(signature)
        case nil: break
        }
        // curl adds a type to bodies of its own accord, which the signature would have to cover.
        if !headers.contains(where: { $0.name.lowercased() == "content-type" }) { headers.append(("Content-Type", "")) }
        let url = endpoint + path + (text.isEmpty ? "" : "?" + text.joined(separator: "&"))
        let response: HTTPClientResponse
        do throws(HTTPClientError) {
            response = try await client.send(
                HTTPClientRequest(method: method, url: url, headers: headers, body: body, timeout: .seconds(60)))
        } catch {
            throw StorageError.unreachable(service: endpoint, reason: error.message)
        }
        guard accepting.contains(response.status) else {
            let code = response.header("x-ms-error-code") ?? ""
            throw StorageError.refused(service: endpoint, status: response.status, reason: code)
        }
        return response
    }

    /// The path of a URL, without a slash at its end.
    private static func path(of url: String) -> String {
        guard let start = url.firstRange(of: "://")?.upperBound, let slash = url[start...].firstIndex(of: "/") else {
            return ""
        }
        return String(url[slash...])
    }

    private func path(_ address: BlobAddress) -> String { "/" + percentEncoded(path: address.description) }

    // MARK: Blobs

    private func properties(_ response: HTTPClientResponse) -> BlobProperties {
        var etag = response.header("etag") ?? ""
        etag = String(etag.drop { $0 == "\"" }.reversed().drop { $0 == "\"" }.reversed())
        var properties = BlobProperties(
            etag: etag, lastModified: response.header("last-modified").flatMap(parseHTTPDate) ?? 0,
            byteCount: response.header("content-length").flatMap { Int($0) } ?? response.body.count,
            contentType: response.header("content-type") ?? BlobProperties.defaultContentType)
        properties.metadata = response.headers.filter { $0.name.hasPrefix("x-ms-meta-") }
            .map { (String($0.name.dropFirst(10)), $0.value) }
        return properties
    }

    func head(_ address: BlobAddress) async throws(StorageError) -> BlobProperties? {
        let response = try await send("HEAD", path(address), accepting: [200, 404])
        return response.status == 200 ? properties(response) : nil
    }

    public func read(_ address: BlobAddress, limit: Int) async throws(StorageError) -> Blob? {
        guard let properties = try await head(address) else { return nil }
        guard properties.byteCount <= limit else {
            throw StorageError.tooLarge(blob: "\(address)", byteCount: properties.byteCount, limit: limit)
        }
        let response = try await send(
            "GET", path(address), headers: [("If-Match", "\"\(properties.etag)\"")], accepting: [200, 404, 412])
        // It has changed between the two: the newer version is as good.
        if response.status == 412 { return try await read(address, limit: limit) }
        return response.status == 200 ? Blob(properties: properties, contents: response.body) : nil
    }

    public func write(
        _ address: BlobAddress, _ contents: [UInt8], _ headers: BlobHeaders
    ) async throws(StorageError) -> BlobProperties {
        var fields = [("x-ms-blob-type", "BlockBlob"), ("Content-Type", headers.contentType)]
        fields += headers.metadata.map { ("x-ms-meta-\($0.name)", $0.value) }
        var response = try await send(
            "PUT", path(address), headers: fields, body: contents, accepting: [201, 404])
        if response.status == 404 {
            _ = try await send(
                "PUT", "/\(address.container)", query: [("restype", "container")], accepting: [201, 409])
            response = try await send("PUT", path(address), headers: fields, body: contents, accepting: [201])
        }
        var written = properties(response)
        written.byteCount = contents.count
        return written
    }

    // MARK: Polling

    private func pollAll() {
        for container in Set(observers.map(\.container)) { poll(container) }
        if !observers.isEmpty { timer?.start(after: Self.pollInterval) }
    }

    private func poll(_ container: String) {
        guard polling.insert(container).inserted else { return }
        loopTask { [self] in
            await look(through: container)
            polling.remove(container)
        }
    }

    /// Lists a container, as far as one cycle goes.
    private func look(through container: String) async {
        var seen = 0
        var marker = continuations.removeValue(forKey: container) ?? ""
        do throws(StorageError) {
            repeat {
                let (page, next) = try await list(container, marker: marker)
                for observer in observers where observer.container == container {
                    observer.watchFailed(nil)
                    await observer.blobsFound(page)
                }
                seen += page.count
                marker = next
            } while !marker.isEmpty && seen < Self.blobsPerCycle
            if marker.isEmpty {
                for observer in observers where observer.container == container { observer.scanEnded() }
            } else {
                continuations[container] = marker
            }
        } catch {
            for observer in observers where observer.container == container { observer.watchFailed(error) }
        }
    }

    /// A page of a container's blobs, and where the next one begins; a container that is not there is empty.
    private func list(
        _ container: String, marker: String
    ) async throws(StorageError) -> (blobs: [FoundBlob], next: String) {
        var query = [(name: "restype", value: "container"), ("comp", "list"), ("maxresults", "5000")]
        if !marker.isEmpty { query.append(("marker", marker)) }
        let response = try await send("GET", "/\(container)", query: query, accepting: [200, 404])
        if response.status == 404 { return ([], "") }
        guard let leaves = XMLReader.leaves(of: response.body) else {
            throw StorageError.refused(service: connection.blobEndpoint, status: 200, reason: "its list is no XML")
        }
        var blobs: [FoundBlob] = []
        var name = ""
        var next = ""
        for leaf in leaves {
            switch leaf.name {
            case "Name": name = leaf.isEncoded ? PercentCoding.decode(leaf.text.utf8) ?? leaf.text : leaf.text
            case "Etag": blobs.append(FoundBlob(name: name, etag: leaf.text.filter { $0 != "\"" }))
            case "NextMarker": next = leaf.text
            default: break
            }
        }
        return (blobs, next)
    }
}

extension RemoteAccount: BlobSource {
    public func add(_ observer: any BlobObserver) {
        observers.append(observer)
        poll(observer.container)
        if timer?.isActive == false { timer?.start(after: Self.pollInterval) }
    }

    public func remove(_ observer: any BlobObserver) {
        observers.removeAll { $0 === observer }
        if observers.isEmpty { timer?.stop() }
    }

    public func rescan(_ container: String) {
        completed.removeAll()
        listed.removeAll()
        poll(container)
    }

    public func author(of address: BlobAddress) -> String? { nil }

    public func reading(_ address: BlobAddress, limit: Int, wasClosed: Bool) async -> BlobReading {
        do throws(StorageError) {
            guard let blob = try await read(address, limit: limit) else { return .gone }
            return .blob(blob)
        } catch {
            return .failed(error)
        }
    }

    public func properties(of address: BlobAddress) async -> BlobProperties? { (try? await head(address)) ?? nil }

    // MARK: Receipts

    private func address(_ key: ReceiptKey) -> BlobAddress {
        BlobAddress(
            container: Self.hostContainer,
            name: "blobreceipts/\(hostID())/Host.Functions.\(key.function)/\"\(key.etag)\"/\(key.container)/\(key.name)"
        )
    }

    private func standing(_ key: ReceiptKey) async throws(StorageError) -> ReceiptStanding? {
        if completed.contains(key) { return ReceiptStanding(state: .completed, attempts: 1) }
        guard let properties = try await head(address(key)) else { return nil }
        let value = { (name: String) in properties.metadata.first { $0.name.lowercased() == name }?.value }
        let isComplete = value("completed")?.lowercased() == "true"
        if isComplete { remember(key) }
        let state: ReceiptState = !isComplete ? .attempted : value("poisoned") == nil ? .completed : .poisoned
        return ReceiptStanding(state: state, attempts: value("attempts").flatMap { Int($0) } ?? 0)
    }

    /// Takes all complete receipts of a function into memory, a page at a time.
    private func listReceipts(of function: String) async throws(StorageError) {
        let prefix = "blobreceipts/\(hostID())/Host.Functions.\(function)/"
        var marker = ""
        repeat {
            var query = [
                (name: "restype", value: "container"), ("comp", "list"), ("include", "metadata"),
                ("maxresults", "5000"),
                ("prefix", prefix),
            ]
            if !marker.isEmpty { query.append(("marker", marker)) }
            let response = try await send("GET", "/\(Self.hostContainer)", query: query, accepting: [200, 404])
            guard response.status == 200, let leaves = XMLReader.leaves(of: response.body) else { return }
            var name = ""
            marker = ""
            for leaf in leaves {
                switch leaf.name.lowercased() {
                case "name": name = leaf.isEncoded ? PercentCoding.decode(leaf.text.utf8) ?? leaf.text : leaf.text
                case "completed" where leaf.text.lowercased() == "true":
                    let parts = name.dropFirst(prefix.count).split(separator: "/", maxSplits: 2).map(String.init)
                    guard name.hasPrefix(prefix), parts.count == 3 else { continue }
                    remember(
                        ReceiptKey(
                            function: function, container: parts[1], name: parts[2],
                            etag: parts[0].filter { $0 != "\"" }))
                case "nextmarker": marker = leaf.text
                default: break
                }
            }
        } while !marker.isEmpty && completed.count < Self.completedLimit
    }

    private func remember(_ key: ReceiptKey) {
        if completed.count >= Self.completedLimit { completed.removeAll() }
        completed.insert(key)
    }

    public func receipt(_ key: ReceiptKey) -> Eventual<Result<ReceiptStanding?, StorageError>> {
        .awaiting { [self] in
            do throws(StorageError) { return .success(try await standing(key)) } catch { return .failure(error) }
        }
    }

    public func unprocessed(
        _ function: String, _ container: String, _ blobs: [FoundBlob]
    ) -> Eventual<Result<[FoundBlob], StorageError>> {
        .awaiting { [self] in
            var left: [FoundBlob] = []
            do throws(StorageError) {
                if !listed.contains(function) {
                    try await listReceipts(of: function)
                    listed.insert(function)
                }
                for blob in blobs {
                    let key = ReceiptKey(function: function, container: container, name: blob.name, etag: blob.etag)
                    if try await standing(key)?.state ?? .attempted == .attempted { left.append(blob) }
                }
                return .success(left)
            } catch {
                return .failure(error)
            }
        }
    }

    public func record(
        _ key: ReceiptKey, _ state: ReceiptState, attempts: Int, poison: (queue: String, message: NewMessage)?
    ) -> Eventual<Result<Void, StorageError>> {
        .awaiting { [self] in
            do throws(StorageError) {
                // The message first: given twice is better than lost.
                if let poison { try await put([poison.message], queue: poison.queue) }
                var metadata = [("Completed", state == .attempted ? "False" : "True"), ("Attempts", "\(attempts)")]
                if state == .poisoned { metadata.append(("Poisoned", "True")) }
                _ = try await write(address(key), [], BlobHeaders(metadata: metadata))
                if state != .attempted { remember(key) }
                return .success(())
            } catch {
                return .failure(error)
            }
        }
    }

    public func skip(_ function: String, _ container: String, _ blobs: [FoundBlob]) async {
        for blob in blobs {
            let key = ReceiptKey(function: function, container: container, name: blob.name, etag: blob.etag)
            _ = await record(key, .skipped, attempts: 0, poison: nil).value()
        }
    }

    private func startMark(_ function: String, _ container: String) -> BlobAddress {
        BlobAddress(
            container: Self.hostContainer,
            name: "blobscaninfo/\(hostID())/\(accountName)/\(container)/started-\(function)")
    }

    public func hasStarted(_ function: String, _ container: String) async -> Bool? {
        do throws(StorageError) {
            return try await head(startMark(function, container)) != nil
        } catch {
            return nil
        }
    }

    public func setStarted(_ function: String, _ container: String) async {
        _ = try? await write(startMark(function, container), [], BlobHeaders())
    }
}
