/// The Blob service's REST face of the storage folder.
///
/// Operations, statuses, headers and error codes are those of the Blob service; what the real client libraries use for
/// block blobs is there (`docs/reference/storage.md` lists it).
internal import ConfigurationFiles
public import EventLoops
internal import FunctionApps
public import HTTPMessages
public import HTTPServers
public import StorageAccounts

/// Answers requests under `/devstoreaccount1/`.
@EventLoop
public final class BlobFace: HTTPResponder {
    let account: FolderAccount
    let hostID: @EventLoop () -> String
    private let key: [UInt8]
    private var temporaryCount = 0

    /// - Parameter hostID: stands in the names of receipts.
    public init(account: FolderAccount, hostID: @escaping @EventLoop () -> String) {
        self.account = account
        self.hostID = hostID
        key = decodeBase64(StorageConnection.developmentKey) ?? []
    }

    var folder: BlobFolder { account.folder }

    public func refusal(_ error: HTTPParseError) -> HTTPResponse {
        ServiceAnswer.error(ServiceError(error.status, "InvalidHeaderValue", error.reason))
    }

    public func respond(to request: HTTPRequest) -> Eventual<HTTPResponse> {
        .awaiting { [self] in
            let response: HTTPResponse
            do throws(ServiceError) {
                response = try await answer(try StorageRequest(request, account: account.accountName, key: key))
            } catch {
                response = ServiceAnswer.error(error)
            }
            return ServiceAnswer.finish(response, for: request)
        }
    }

    private func answer(_ request: StorageRequest) async throws(ServiceError) -> HTTPResponse {
        let kind = request.query("restype")
        switch (request.parts.count, kind, request.query("comp")) {
        case (0, "service", "properties"):
            return request.method == "GET" ? ServiceAnswer.serviceProperties() : HTTPResponse(status: 202)
        case (_, "account", "properties"): return accountInformation()
        case (0, _, "list"): return await listContainers(request)
        case (1, "container", _): return try await container(request, request.parts[0])
        case (1, _, _):
            return try await blob(request, BlobAddress(container: "$root", name: request.parts[0]))
        case (2, _, _):
            return try await blob(request, BlobAddress(container: request.parts[0], name: request.parts[1]))
        default:
            throw ServiceError(400, "InvalidUri", "The requested URI does not represent any resource on the server.")
        }
    }

    private func accountInformation() -> HTTPResponse {
        var response = HTTPResponse(status: 200)
        response.fields.add("x-ms-sku-name", "Standard_LRS")
        response.fields.add("x-ms-account-kind", "StorageV2")
        return response
    }

    /// Runs blocking work off the loop.
    func work<Value: Sendable>(
        _ body: @escaping @Sendable () -> Result<Value, StorageError>
    ) async throws(ServiceError) -> Value {
        switch await offload(body) {
        case .success(let value): return value
        case .failure(let error): throw ServiceError(error)
        }
    }

    func temporaryName() -> String {
        temporaryCount += 1
        return "rest-\(temporaryCount).tmp"
    }

    /// The properties of a blob that must be there, its conditions checked.
    func existing(_ address: BlobAddress, _ request: StorageRequest) async throws(ServiceError) -> BlobProperties {
        if let receipt = try await receiptProperties(address) { return receipt }
        let found = try await work { [folder] in folder.properties(address) }
        guard let found else {
            guard isFolder("\(folder.root)/\(address.container)") else { throw Self.noContainer }
            throw ServiceError(404, "BlobNotFound", "The specified blob does not exist.")
        }
        try check(found, request)
        return found
    }

    static let noContainer = ServiceError(404, "ContainerNotFound", "The specified container does not exist.")

    private func check(_ properties: BlobProperties, _ request: StorageRequest) throws(ServiceError) {
        let isRead = request.method == "GET" || request.method == "HEAD"
        let notModified = ServiceError(
            304, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
        let failed = ServiceError(
            412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
        if let condition = request.condition, !condition.holds(for: properties.etag) {
            if case .differs = condition, isRead { throw notModified }
            throw failed
        }
        let second = properties.lastModified.rounded(.down)
        if let since = request.header("if-modified-since").flatMap(parseHTTPDate), second <= since {
            throw isRead ? notModified : failed
        }
        if let since = request.header("if-unmodified-since").flatMap(parseHTTPDate), second > since { throw failed }
    }

    private func blob(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse {
        switch (request.method, request.query("comp")) {
        case ("GET", nil), ("HEAD", nil): return try await download(request, address)
        case ("GET", "metadata"), ("HEAD", "metadata"):
            var response = HTTPResponse(status: 200)
            describe(try await existing(address, request), &response, isWhole: false)
            return response
        case ("PUT", nil):
            return request.header("x-ms-copy-source") == nil
                ? try await upload(request, address) : try await copy(request, address)
        case ("PUT", "block"): return try await stage(request, address)
        case ("PUT", "blocklist"): return try await commit(request, address)
        case ("GET", "blocklist"): return try await blockList(request, address)
        case ("PUT", "metadata"), ("PUT", "properties"): return try await change(request, address)
        case ("DELETE", nil): return try await delete(request, address)
        default:
            throw ServiceError(
                501, "NotImplemented",
                "\(request.method) with comp='\(request.query("comp") ?? "")' is not served by this host.")
        }
    }

    // MARK: Reading

    private func download(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse
    {
        let properties = try await existing(address, request)
        var response = HTTPResponse(status: 200)
        if request.method == "HEAD" {
            response.headLength = properties.byteCount
            describe(properties, &response, isWhole: true)
            return response
        }
        let range = try Self.range(request.header("x-ms-range") ?? request.header("range"), properties.byteCount)
        let blob: Blob?
        do throws(StorageError) {
            blob =
                properties.byteCount == 0 && address.container == Self.hostContainer
                ? Blob(properties: properties, contents: [])
                : try await account.read(address, limit: .max)
        } catch {
            throw ServiceError(error)
        }
        guard let blob else { throw ServiceError(404, "BlobNotFound", "The specified blob does not exist.") }
        describe(blob.properties, &response, isWhole: true)
        guard let range else {
            response.body = blob.contents
            return response
        }
        let end = min(range.upperBound, blob.contents.count)
        guard range.lowerBound < end else {
            throw ServiceError(
                416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
        }
        response.status = 206
        response.body = Array(blob.contents[range.lowerBound..<end])
        response.fields.add("Content-Range", "bytes \(range.lowerBound)-\(end - 1)/\(blob.contents.count)")
        return response
    }

    /// `bytes=a-b`, `bytes=a-`; nil for none.
    private static func range(_ text: String?, _ size: Int) throws(ServiceError) -> Range<Int>? {
        guard let text else { return nil }
        let invalid = ServiceError(
            416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
        guard text.hasPrefix("bytes=") else { return nil }
        let halves = text.dropFirst(6).split(separator: "-", omittingEmptySubsequences: false)
        guard halves.count == 2, let start = Int(halves[0]), start >= 0 else { throw invalid }
        let end = halves[1].isEmpty ? size : (Int(halves[1]).map { $0 == .max ? $0 : $0 + 1 } ?? 0)
        guard start < size, end > start else { throw invalid }
        return start..<end
    }

    /// Adds a blob's properties to an answer.
    func describe(_ properties: BlobProperties, _ response: inout HTTPResponse, isWhole: Bool) {
        response.fields.add("ETag", "\"\(properties.etag)\"")
        response.fields.add("Last-Modified", httpDate(properties.lastModified))
        for pair in properties.metadata { response.fields.add("x-ms-meta-\(pair.name)", pair.value) }
        guard isWhole else { return }
        response.fields.add("Content-Type", properties.contentType)
        for pair in properties.headers where pair.name != "content-md5" {
            response.fields.add(pair.name, pair.value)
        }
        response.fields.add("Accept-Ranges", "bytes")
        response.fields.add("x-ms-blob-type", "BlockBlob")
        response.fields.add("x-ms-creation-time", httpDate(properties.lastModified))
        response.fields.add("x-ms-lease-status", "unlocked")
        response.fields.add("x-ms-lease-state", "available")
        response.fields.add("x-ms-server-encrypted", "false")
    }

    // MARK: Removing

    private func delete(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse {
        if let receipt = receiptKey(address) {
            guard case .success(let count) = await account.ledger.forget(receipt).value(), count > 0 else {
                throw ServiceError(404, "BlobNotFound", "The specified blob does not exist.")
            }
            return HTTPResponse(status: 202)
        }
        _ = try await existing(address, request)
        let condition = request.condition
        guard try await work({ [folder] in folder.delete(address, condition: condition) }) else {
            throw ServiceError(404, "BlobNotFound", "The specified blob does not exist.")
        }
        var response = HTTPResponse(status: 202)
        response.fields.add("x-ms-delete-type-permanent", "true")
        return response
    }
}
