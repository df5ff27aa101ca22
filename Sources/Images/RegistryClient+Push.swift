/// Writing to a registry: blobs that it does not have, then the configuration, then the manifest.
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc
internal import HTTPClients

/// A blob to be pushed.
public struct PushedBlob: Sendable {
    public let descriptor: Descriptor
    /// The file that holds it; nil for a blob that is in another repository of the registry.
    public let path: String?
    /// The repository it can be mounted from.
    public let mountFrom: String?

    public init(descriptor: Descriptor, path: String?, mountFrom: String? = nil) {
        self.descriptor = descriptor
        self.path = path
        self.mountFrom = mountFrom
    }
}

/// How a blob came to be in the registry.
public enum PushOutcome: String, Sendable {
    case pushed, mounted
    case exists = "already exists"
}

extension RegistryClient {
    /// Pushes an image: its blobs, and its manifest under each of the references.
    ///
    /// - Returns: the manifest's digest.
    public func push(
        blobs: [PushedBlob], manifest: [UInt8], mediaType: String, to references: [ImageReference],
        report: @EventLoop (Descriptor, PushOutcome) -> Void
    ) async throws(ImageError) -> Digest {
        guard let first = references.first else { return Digest(of: manifest) }
        for blob in blobs { report(blob.descriptor, try await push(blob, to: first)) }
        let digest = Digest(of: manifest)
        for reference in references {
            let response = try await perform(
                RegistryCall(
                    method: "PUT", path: "/v2/\(reference.repository)/manifests/\(reference.identifier)",
                    headers: [("Content-Type", mediaType)], body: manifest,
                    scope: "repository:\(reference.repository):pull,push", image: "\(reference)", step: "push manifest")
            )
            if let answered = response.header("docker-content-digest").flatMap({ Digest($0) }), answered != digest {
                throw ImageError(
                    .verification, image: "\(reference)", step: "push manifest",
                    "\(host) calls the manifest \(answered), and it is \(digest)",
                    remedy: "something between here and the registry changes it")
            }
        }
        return digest
    }

    private func push(_ blob: PushedBlob, to reference: ImageReference) async throws(ImageError) -> PushOutcome {
        let step = "push \(blob.descriptor.digest.short)"
        let scope = "repository:\(reference.repository):pull,push"
        let root = "/v2/\(reference.repository)/blobs"
        do throws(ImageError) {
            _ = try await perform(
                RegistryCall(
                    method: "HEAD", path: "\(root)/\(blob.descriptor.digest)", scope: scope, image: "\(reference)",
                    step: step))
            return .exists
        } catch {
            guard error.kind == .notFound else { throw error }
        }
        if let from = blob.mountFrom, from != reference.repository {
            let response = try await perform(
                RegistryCall(
                    method: "POST",
                    path:
                        "\(root)/uploads/?mount=\(percentEncode("\(blob.descriptor.digest)"))&from=\(percentEncode(from))",
                    scope: "\(scope) repository:\(from):pull", image: "\(reference)", step: step))
            if response.status == 201 { return .mounted }
        }
        guard let path = blob.path else {
            throw ImageError(
                .notFound, image: "\(reference)", step: step,
                "the registry cannot mount \(blob.descriptor.digest) from '\(blob.mountFrom ?? "")'",
                remedy: "push the base image to the same registry first")
        }
        try await upload(blob.descriptor, path, root, scope, reference, step)
        return .pushed
    }

    /// A failed upload ends its session, so each attempt begins with a new one.
    private func upload(
        _ descriptor: Descriptor, _ path: String, _ root: String, _ scope: String, _ reference: ImageReference,
        _ step: String
    ) async throws(ImageError) {
        var retries = RetryPolicy()
        while true {
            do throws(ImageError) {
                let session = try await perform(
                    RegistryCall(
                        method: "POST", path: "\(root)/uploads/", scope: scope, image: "\(reference)", step: step))
                guard let location = session.header("location") else {
                    throw ImageError(
                        .protocolViolation, image: "\(reference)", step: step,
                        "\(host) gives no Location for an upload",
                        remedy: "is it a registry?")
                }
                var call = RegistryCall(
                    method: "PUT",
                    path: location + (location.contains("?") ? "&" : "?") + "digest=\(descriptor.digest)",
                    headers: [("Content-Type", "application/octet-stream")], scope: scope, image: "\(reference)",
                    step: step, isRepeatable: false)
                call.upload = HTTPUpload(path: path, byteCount: descriptor.size)
                _ = try await perform(call)
                return
            } catch {
                guard [.unreachable, .busy].contains(error.kind), let delay = retries.nextDelay(asked: nil) else {
                    throw error
                }
                try await wait(delay, asked: false, error)
            }
        }
    }
}
