/// Reading from a registry: manifests, blobs, tags.
internal import Diagnostics
internal import EventLoops
internal import HTTPClients
internal import JSONText

extension RegistryClient {
    /// A manifest's bytes, verified against their digest, with the media type the registry gave.
    struct FetchedManifest {
        let bytes: [UInt8]
        let contentType: String
        let digest: Digest
    }

    private func manifestCall(_ method: String, _ reference: ImageReference, _ step: String) -> RegistryCall {
        RegistryCall(
            method: method, path: "/v2/\(reference.repository)/manifests/\(reference.identifier)",
            headers: [("Accept", MediaType.accepted)], scope: "repository:\(reference.repository):pull",
            image: "\(reference)", step: step, byteLimit: Manifest.byteLimit)
    }

    /// What a tag stands for now: one HEAD. nil when the registry does not say.
    func resolve(_ reference: ImageReference) async throws(ImageError) -> Digest? {
        if let digest = reference.digest { return digest }
        do throws(ImageError) {
            let response = try await perform(manifestCall("HEAD", reference, "resolve"))
            return response.header("docker-content-digest").flatMap { Digest($0) }
        } catch {
            // Answers to HEAD have no body; GET says what is wrong.
            guard [.notFound, .protocolViolation].contains(error.kind) else { throw error }
            return nil
        }
    }

    /// Fetches a manifest or index.
    func manifest(_ reference: ImageReference) async throws(ImageError) -> FetchedManifest {
        let step = "manifest"
        let response: HTTPClientResponse
        do throws(ImageError) {
            response = try await perform(manifestCall("GET", reference, step))
        } catch {
            guard error.kind == .notFound, let hint = reference.tagHint ?? reference.domainHint else { throw error }
            throw ImageError(.notFound, image: error.image, step: error.step, error.reason, remedy: hint)
        }
        let type = String((response.header("content-type") ?? "").prefix { $0 != ";" }.filter { $0 != " " })
        func violation(_ reason: String) -> ImageError {
            ImageError(
                .protocolViolation, image: "\(reference)", step: step, reason,
                remedy: "is \(host) a registry, and is nothing in between answering for it?")
        }
        guard type.isEmpty || type.hasPrefix("application/") else { throw violation("\(host) answers with \(type)") }
        let digest = Digest(of: response.body)
        func mismatch(_ promised: String) -> ImageError {
            ImageError(
                .verification, image: "\(reference)", step: step,
                "the manifest's digest is \(digest), and not \(promised)", remedy: "something changed it on its way")
        }
        if let promised = reference.digest, promised != digest { throw mismatch("\(promised)") }
        if let claimed = response.header("docker-content-digest"), claimed.hasPrefix("sha256:"), claimed != "\(digest)"
        {
            throw mismatch(claimed)
        }
        return FetchedManifest(
            bytes: response.body, contentType: type == "application/json" ? "" : type, digest: digest)
    }

    /// Fetches a small blob whole and verifies it.
    func blob(_ descriptor: Descriptor, of reference: ImageReference, step: String) async throws(ImageError) -> [UInt8]
    {
        let response = try await perform(
            RegistryCall(
                path: "/v2/\(reference.repository)/blobs/\(descriptor.digest)",
                scope: "repository:\(reference.repository):pull", image: "\(reference)", step: step,
                byteLimit: Manifest.configurationByteLimit))
        guard response.body.count == descriptor.size, Digest(of: response.body) == descriptor.digest else {
            throw ImageError(
                .verification, image: "\(reference)", step: step,
                "\(descriptor.digest) is not what came: \(response.body.count) bytes of digest \(Digest(of: response.body)), promised were \(descriptor.size) bytes",
                remedy: "something changed it on its way, or the image was pushed wrong")
        }
        return response.body
    }

    /// The repository's tags, sorted.
    public func tags(_ reference: ImageReference) async throws(ImageError) -> [String] {
        var found: Set<String> = []
        var path: String? = "/v2/\(reference.repository)/tags/list"
        var pages = 0
        while let next = path, pages < 1000 {
            pages += 1
            let response = try await perform(
                RegistryCall(
                    path: next, scope: "repository:\(reference.repository):pull", image: "\(reference)", step: "tags"))
            let document = try? JSONParser.parse(response.body)
            for tag in document?["tags"]?.elements ?? [] { if let name = tag.string { found.insert(name) } }
            path = response.header("link").flatMap(nextPage)
        }
        return found.sorted()
    }

    /// The names of the registry's repositories, sorted.
    public func repositories() async throws(ImageError) -> [String] {
        var found: Set<String> = []
        var path: String? = "/v2/_catalog?n=1000"
        var pages = 0
        while let next = path, pages < 1000 {
            pages += 1
            let response = try await perform(
                RegistryCall(path: next, scope: "registry:catalog:*", image: host, step: "catalog"))
            let document = try? JSONParser.parse(response.body)
            for name in document?["repositories"]?.elements ?? [] { if let name = name.string { found.insert(name) } }
            path = response.header("link").flatMap(nextPage)
        }
        return found.sorted()
    }

    /// Deletes what a reference stands for, by its digest.
    public func delete(_ reference: ImageReference) async throws(ImageError) -> Digest {
        let found = try await manifest(reference)
        _ = try await perform(
            RegistryCall(
                method: "DELETE", path: "/v2/\(reference.repository)/manifests/\(found.digest)",
                scope: "repository:\(reference.repository):delete", image: "\(reference)", step: "delete"))
        return found.digest
    }

    /// The digest of the manifest a reference stands for.
    public func digest(_ reference: ImageReference) async throws(ImageError) -> Digest {
        if let digest = try await resolve(reference) { return digest }
        return try await manifest(reference).digest
    }
}

/// The path in `<…>; rel="next"`.
private func nextPage(_ link: String) -> String? {
    guard link.contains("rel=\"next\""), let open = link.firstIndex(of: "<"), let close = link.firstIndex(of: ">"),
        open < close
    else { return nil }
    let target = String(link[link.index(after: open)..<close])
    return target.hasPrefix("/") ? target : nil
}
