/// Containers over the Blob face: made, listed, removed; and receipts as the blobs they are in Azure.
internal import ConfigurationFiles
internal import EventLoops
internal import FunctionApps
internal import Glibc
internal import HTTPMessages
internal import StorageAccounts

extension BlobFace {
    /// Where the real host keeps its receipts.
    static let hostContainer = "azure-webjobs-hosts"
    /// Blobs in one page of a list.
    static let pageLimit = 5000

    func container(_ request: StorageRequest, _ name: String) async throws(ServiceError) -> HTTPResponse {
        guard isContainerName(name) else {
            throw ServiceError(400, "InvalidResourceName", "The specified resource name contains invalid characters.")
        }
        switch (request.method, request.query("comp")) {
        case ("PUT", nil): return try await create(request, name)
        case ("DELETE", nil):
            let temporary = temporaryName()
            guard try await work({ [folder] in folder.deleteContainer(name, temporaryName: temporary) }) else {
                throw Self.noContainer
            }
            return HTTPResponse(status: 202)
        case ("GET", "list"): return try await list(request, name)
        case ("GET", nil), ("HEAD", nil), ("GET", "metadata"), ("HEAD", "metadata"):
            var response = HTTPResponse(status: 200)
            describe(try await containerProperties(name), &response, isWhole: false)
            response.fields.add("x-ms-lease-status", "unlocked")
            response.fields.add("x-ms-lease-state", "available")
            response.fields.add("x-ms-has-immutability-policy", "false")
            response.fields.add("x-ms-has-legal-hold", "false")
            return response
        case ("PUT", "metadata"):
            let metadata = request.metadata
            let changed = try await work { [folder] in folder.setContainerMetadata(name, metadata) }
            guard changed else { throw Self.noContainer }
            var response = HTTPResponse(status: 200)
            let properties = try await containerProperties(name)
            response.fields.add("ETag", "\"\(properties.etag)\"")
            response.fields.add("Last-Modified", httpDate(properties.lastModified))
            return response
        case ("GET", "acl"), ("HEAD", "acl"):
            _ = try await containerProperties(name)
            var writer = XMLWriter()
            writer.element("SignedIdentifiers", "")
            return ServiceAnswer.xml(writer)
        default:
            throw ServiceError(
                501, "NotImplemented",
                "\(request.method) with comp='\(request.query("comp") ?? "")' is not served by this host.")
        }
    }

    private func create(_ request: StorageRequest, _ name: String) async throws(ServiceError) -> HTTPResponse {
        let metadata = request.metadata
        guard try await work({ [folder] in folder.createContainer(name) }) else {
            throw ServiceError(409, "ContainerAlreadyExists", "The specified container already exists.")
        }
        _ = try await work { [folder] in folder.setContainerMetadata(name, metadata) }
        let properties = try await containerProperties(name)
        var response = HTTPResponse(status: 201)
        response.fields.add("ETag", "\"\(properties.etag)\"")
        response.fields.add("Last-Modified", httpDate(properties.lastModified))
        return response
    }

    private func containerProperties(_ name: String) async throws(ServiceError) -> BlobProperties {
        let found = try await work { [folder] in
            Result<_, StorageError>.success(folder.containerProperties(name))
        }
        if let found { return found }
        if name == Self.hostContainer { return BlobProperties(etag: "0x8D0", lastModified: 0, byteCount: 0) }
        throw Self.noContainer
    }

    func listContainers(_ request: StorageRequest) async -> HTTPResponse {
        let prefix = request.query("prefix") ?? ""
        let names = await offload { [folder] in
            folder.containers().compactMap { name in folder.containerProperties(name).map { (name, $0) } }
        }
        let marker = request.query("marker") ?? ""
        let limit = request.query("maxresults").flatMap { Int($0) } ?? Self.pageLimit
        var matching = names.filter { $0.0.hasPrefix(prefix) && $0.0 > marker }
        let hasMore = matching.count > limit
        if hasMore { matching.removeLast(matching.count - limit) }
        let includesMetadata = request.query("include")?.contains("metadata") ?? false
        var writer = XMLWriter()
        writer.open("EnumerationResults ServiceEndpoint=\"\(account.blobEndpoint ?? "")\"")
        writer.element("Prefix", prefix)
        writer.open("Containers")
        for (name, properties) in matching {
            writer.open("Container")
            writer.name(name)
            writer.open("Properties")
            writer.element("Last-Modified", httpDate(properties.lastModified))
            writer.element("Etag", "\"\(properties.etag)\"")
            writer.element("LeaseStatus", "unlocked")
            writer.element("LeaseState", "available")
            writer.close("Properties")
            if includesMetadata { write(properties.metadata, &writer) }
            writer.close("Container")
        }
        writer.close("Containers")
        writer.element("NextMarker", hasMore ? matching.last?.0 ?? "" : "")
        writer.close("EnumerationResults")
        return ServiceAnswer.xml(writer)
    }

    private func write(_ metadata: [(name: String, value: String)], _ writer: inout XMLWriter) {
        writer.open("Metadata")
        for pair in metadata where pair.name.utf8.allSatisfy({ $0 > 0x20 && !"<>&\"'/".utf8.contains($0) }) {
            writer.element(pair.name, pair.value)
        }
        writer.close("Metadata")
    }

    // MARK: Listing blobs

    private enum Entry: Sendable {
        case blob(String)
        case prefix(String)
    }

    private func list(_ request: StorageRequest, _ container: String) async throws(ServiceError) -> HTTPResponse {
        _ = try await containerProperties(container)
        let prefix = request.query("prefix") ?? ""
        let delimiter = request.query("delimiter") ?? ""
        let marker = request.query("marker") ?? ""
        let limit = min(max(request.query("maxresults").flatMap { Int($0) } ?? Self.pageLimit, 1), Self.pageLimit)
        var names = try await work { [folder] in
            Result<_, StorageError>.success(folder.names(container: container, prefix: prefix))
        }
        if container == Self.hostContainer { names += try await receiptNames(prefix: prefix) }
        var entries: [Entry] = []
        var last = ""
        var next = ""
        for name in names {
            var key = name
            var isPrefix = false
            if !delimiter.isEmpty, let end = name.dropFirst(prefix.count).firstRange(of: delimiter)?.upperBound {
                key = String(name[..<end])
                isPrefix = true
            }
            if !marker.isEmpty, key.utf8.lexicographicallyPrecedes(marker.utf8) { continue }
            if isPrefix, key == last { continue }
            if entries.count == limit {
                next = key
                break
            }
            last = key
            entries.append(isPrefix ? .prefix(key) : .blob(key))
        }
        var writer = XMLWriter()
        writer.open(
            "EnumerationResults ServiceEndpoint=\"\(account.blobEndpoint ?? "")\" ContainerName=\"\(container)\"")
        writer.element("Prefix", prefix)
        writer.element("Marker", marker)
        writer.element("MaxResults", "\(limit)")
        if !delimiter.isEmpty { writer.element("Delimiter", delimiter) }
        writer.open("Blobs")
        let includesMetadata = request.query("include")?.contains("metadata") ?? false
        let found = await properties(of: entries, in: container)
        for entry in entries { try await write(entry, in: container, found, includesMetadata, &writer) }
        writer.close("Blobs")
        writer.element("NextMarker", next)
        writer.close("EnumerationResults")
        return ServiceAnswer.xml(writer)
    }

    /// The properties of a page's blobs, in one trip to another thread.
    private func properties(of entries: [Entry], in container: String) async -> [String: BlobProperties] {
        await offload { [folder] in
            var found: [String: BlobProperties] = [:]
            for case .blob(let name) in entries {
                let address = BlobAddress(container: container, name: name)
                if case .success(let properties?) = folder.properties(address) { found[name] = properties }
            }
            return found
        }
    }

    private func write(
        _ entry: Entry, in container: String, _ found: [String: BlobProperties], _ includesMetadata: Bool,
        _ writer: inout XMLWriter
    ) async throws(ServiceError) {
        switch entry {
        case .prefix(let name):
            writer.open("BlobPrefix")
            writer.name(name)
            writer.close("BlobPrefix")
        case .blob(let name):
            let address = BlobAddress(container: container, name: name)
            var properties = found[name]
            if properties == nil { properties = try await receiptProperties(address) }
            guard let properties else { return }
            writer.open("Blob")
            writer.name(name)
            writer.open("Properties")
            writer.element("Creation-Time", httpDate(properties.lastModified))
            writer.element("Last-Modified", httpDate(properties.lastModified))
            writer.element("Etag", properties.etag)
            writer.element("Content-Length", "\(properties.byteCount)")
            writer.element("Content-Type", properties.contentType)
            for name in ["Content-Encoding", "Content-Language", "Cache-Control", "Content-Disposition"] {
                writer.element(name, properties.headers.first { $0.name == name.lowercased() }?.value ?? "")
            }
            writer.element("Content-MD5", "")
            writer.element("BlobType", "BlockBlob")
            writer.element("LeaseStatus", "unlocked")
            writer.element("LeaseState", "available")
            writer.element("ServerEncrypted", "false")
            writer.close("Properties")
            if includesMetadata { write(properties.metadata, &writer) }
            writer.close("Blob")
        }
    }

    // MARK: Receipts

    private static let receiptFolder = "blobreceipts/"

    /// The names the real host's receipts have, in order.
    private func receiptNames(prefix: String) async throws(ServiceError) -> [String] {
        guard prefix.hasPrefix(Self.receiptFolder) || Self.receiptFolder.hasPrefix(prefix),
            case .success(let receipts) = await account.ledger.receipts(
                function: nil, prefix: "", state: nil, limit: 1_000_000
            ).value()
        else { return [] }
        return receipts.map { receiptName($0.key) }.filter { $0.hasPrefix(prefix) }
            .sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    private func receiptName(_ key: ReceiptKey) -> String {
        "\(Self.receiptFolder)\(hostID())/Host.Functions.\(key.function)/\"\(key.etag)\"/\(key.container)/\(key.name)"
    }

    /// The receipt a blob's name in the host's container stands for.
    func receiptKey(_ address: BlobAddress) -> ReceiptKey? {
        guard address.container == Self.hostContainer, address.name.hasPrefix(Self.receiptFolder) else { return nil }
        let parts = address.name.split(separator: "/", maxSplits: 5).map(String.init)
        guard parts.count == 6, parts[1] == hostID(), parts[2].hasPrefix("Host.Functions."), parts[3].hasPrefix("\"")
        else { return nil }
        return ReceiptKey(
            function: String(parts[2].dropFirst(15)), container: parts[4], name: parts[5],
            etag: StorageRequest.unquoted(parts[3]))
    }

    /// A receipt as the empty blob it is in Azure; nil when the name is none of one, or there is none.
    func receiptProperties(_ address: BlobAddress) async throws(ServiceError) -> BlobProperties? {
        guard let key = receiptKey(address) else { return nil }
        guard case .success(let receipt?) = await account.ledger.receipt(key).value() else { return nil }
        return BlobProperties(
            etag: "0x8D\(receipt.attempts)", lastModified: wallClockSeconds(), byteCount: 0,
            metadata: [("Completed", receipt.state == .attempted ? "False" : "True")])
    }
}
