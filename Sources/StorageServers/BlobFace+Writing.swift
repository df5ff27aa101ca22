/// Writing over the Blob face: whole, in blocks, copies, and changes of properties.
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages
internal import StorageAccounts

extension BlobFace {
    /// Content type, metadata and other headers of an upload.
    private func headers(_ request: StorageRequest) -> BlobHeaders {
        var headers = BlobHeaders(
            contentType: request.header("x-ms-blob-content-type") ?? request.header("content-type")
                ?? BlobProperties.defaultContentType, metadata: request.metadata)
        for name in ["cache-control", "content-encoding", "content-language", "content-disposition"] {
            if let value = request.header("x-ms-blob-\(name)"), !value.isEmpty { headers.other.append((name, value)) }
        }
        return headers
    }

    private func created(_ properties: BlobProperties, status: Int = 201) -> HTTPResponse {
        var response = HTTPResponse(status: status)
        response.fields.add("ETag", "\"\(properties.etag)\"")
        response.fields.add("Last-Modified", httpDate(properties.lastModified))
        response.fields.add("x-ms-request-server-encrypted", "false")
        return response
    }

    /// Writes a blob when its conditions hold; the container must be there.
    private func write(
        _ address: BlobAddress, _ contents: [UInt8], _ headers: BlobHeaders, _ condition: BlobCondition?
    ) async throws(ServiceError) -> BlobProperties {
        guard folder.containers().contains(address.container) || address.container == Self.hostContainer else {
            throw Self.noContainer
        }
        do throws(StorageError) {
            return try await account.write(address, contents, headers, condition: condition)
        } catch {
            if case .conditionNotMet = error, condition == .differs("*") {
                throw ServiceError(409, "BlobAlreadyExists", "The specified blob already exists.")
            }
            throw ServiceError(error)
        }
    }

    func upload(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse {
        let type = request.header("x-ms-blob-type") ?? ""
        guard type == "BlockBlob" else {
            throw ServiceError(
                400, type.isEmpty ? "MissingRequiredHeader" : "InvalidBlobType",
                "x-ms-blob-type is '\(type)'; this host has block blobs.")
        }
        return created(try await write(address, request.body, headers(request), request.condition))
    }

    /// A copy within the account, done when it is answered.
    func copy(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse {
        let source = request.header("x-ms-copy-source") ?? ""
        let marker = "/\(account.accountName)/"
        guard let start = source.firstRange(of: marker)?.upperBound,
            let path = PercentCoding.decode(source[start...].prefix { $0 != "?" }.utf8)
        else { throw ServiceError(400, "CannotVerifyCopySource", "Blobs are copied within this account only.") }
        let halves = path.split(separator: "/", maxSplits: 1).map(String.init)
        guard halves.count == 2 else {
            throw ServiceError(400, "InvalidHeaderValue", "x-ms-copy-source names no blob.")
        }
        let original: Blob?
        do throws(StorageError) {
            original = try await account.read(BlobAddress(container: halves[0], name: halves[1]), limit: .max)
        } catch {
            throw ServiceError(error)
        }
        guard let original else {
            throw ServiceError(404, "CannotVerifyCopySource", "The specified blob does not exist.")
        }
        let metadata = request.metadata.isEmpty ? original.properties.metadata : request.metadata
        let headers = BlobHeaders(
            contentType: original.properties.contentType, metadata: metadata, other: original.properties.headers)
        var response = created(try await write(address, original.contents, headers, request.condition), status: 202)
        response.fields.add("x-ms-copy-id", newGUID())
        response.fields.add("x-ms-copy-status", "success")
        return response
    }

    /// New metadata or headers make a new version with the same contents.
    func change(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse {
        let properties = try await existing(address, request)
        let blob: Blob?
        do throws(StorageError) {
            blob = try await account.read(address, limit: .max)
        } catch {
            throw ServiceError(error)
        }
        guard let blob else { throw ServiceError(404, "BlobNotFound", "The specified blob does not exist.") }
        var headers = headers(request)
        if request.query("comp") == "metadata" {
            headers.contentType = blob.properties.contentType
            headers.other = blob.properties.headers
        } else {
            headers.contentType = request.header("x-ms-blob-content-type") ?? BlobProperties.defaultContentType
            headers.metadata = blob.properties.metadata
        }
        return created(
            try await write(address, blob.contents, headers, .matches(properties.etag)), status: 200)
    }

    // MARK: Blocks

    /// Keeps a block until it is committed.
    func stage(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse {
        guard let id = request.query("blockid"), let bytes = decodeBase64(id), (1...64).contains(bytes.count) else {
            throw ServiceError(400, "InvalidQueryParameterValue", "blockid is not Base64 of 1 to 64 bytes.")
        }
        guard folder.containers().contains(address.container) else { throw Self.noContainer }
        let body = request.body
        let name = temporaryName()
        try await work { [folder] in folder.stage(address, block: id, body, temporaryName: name) }
        var response = HTTPResponse(status: 201)
        response.fields.add("x-ms-request-server-encrypted", "false")
        return response
    }

    /// Puts blocks together to a blob.
    func commit(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse {
        guard let list = XMLReader.leaves(of: request.body),
            list.allSatisfy({ ["Latest", "Uncommitted", "Committed", "BlockList"].contains($0.name) })
        else { throw ServiceError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.") }
        let ids = list.filter { $0.name != "BlockList" }.map(\.text)
        let contents = try await work { [folder] in folder.blocks(of: address, ids) }
        guard let contents else {
            throw ServiceError(400, "InvalidBlockList", "The specified block list is invalid: a block is not there.")
        }
        let written = try await write(address, contents, headers(request), request.condition)
        try await work { [folder] () -> Result<Void, StorageError> in
            folder.removeBlocks(of: address)
            return .success(())
        }
        return created(written)
    }

    /// The blocks that are staged; committed ones are not kept apart.
    func blockList(_ request: StorageRequest, _ address: BlobAddress) async throws(ServiceError) -> HTTPResponse {
        let staged = try await work { [folder] in Result<_, StorageError>.success(folder.stagedBlocks(of: address)) }
        var writer = XMLWriter()
        writer.open("BlockList")
        writer.element("CommittedBlocks", "")
        writer.open("UncommittedBlocks")
        for block in staged {
            writer.open("Block")
            writer.element("Name", block.id)
            writer.element("Size", "\(block.byteCount)")
            writer.close("Block")
        }
        writer.close("UncommittedBlocks")
        writer.close("BlockList")
        return ServiceAnswer.xml(writer)
    }
}
