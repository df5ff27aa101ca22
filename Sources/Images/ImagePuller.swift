/// A whole image: its name resolved, its manifest chosen, its layers pulled two at a time, its root put together.
internal import ConfigurationFiles
internal import Diagnostics
public import EventLoops
internal import Glibc
internal import HTTPClients

/// An image that lies in the store, whole and verified.
public struct PulledImage: Sendable {
    public let reference: ImageReference
    /// Of the manifest that was chosen.
    public let digest: Digest
    public let manifest: Manifest
    public let configuration: ImageConfiguration
    /// The layers that were put together, by the digest of their contents.
    public let layers: [Digest]
    /// Where its files are.
    public let root: String
    /// Bytes that came over the network.
    public let receivedByteCount: Int
}

/// Pulls images into a store.
@EventLoop
public final class ImagePuller {
    private let store: ContentStore
    private let client: RegistryClient
    private let limits: UnpackLimits
    private let report: @EventLoop (PullEvent) -> Void
    private var running: [LayerPull] = []
    private var failure: ImageError?
    private var received: [Int: Int] = [:]

    /// Layers pulled at a time.
    static let parallelLayers = 2
    /// Indexes inside indexes that are followed.
    static let indexDepth = 2

    public init(
        store: ContentStore, client: RegistryClient, limits: UnpackLimits = UnpackLimits(),
        report: @escaping @EventLoop (PullEvent) -> Void = { _ in }
    ) {
        self.store = store
        self.client = client
        self.limits = limits
        self.report = report
    }

    /// Ends the pull; ``pull(_:skipsBase:)`` throws `error`.
    public func cancel(_ error: ImageError) {
        if failure == nil { failure = error }
        for pull in running { pull.cancel(error) }
    }

    /// Pulls an image, or what is missing of it.
    ///
    /// - Parameter skipsBase: leaves out layers that say they are a base, which no function needs.
    public func pull(_ reference: ImageReference, skipsBase: Bool) async throws(ImageError) -> PulledImage {
        let image = "\(reference)"
        if let error = await offload({ [store] () -> ImageError? in
            do throws(ImageError) { try store.prepare(image: image) } catch { return error }
            return nil
        }) {
            throw error
        }
        let lock = try await keepCollectorsAway(image)
        defer { close(lock) }
        report(.phase("resolve"))
        let resolved = try await client.resolve(reference)
        report(.phase("manifest"))
        let (manifest, digest) = try await manifest(resolved.map { reference.with(digest: $0) } ?? reference, depth: 0)
        report(.digest(digest))
        let decoder = ManifestDecoder(image: image)
        let bytes = try await smallBlob(manifest.configuration, reference)
        let configuration = try decoder.configuration(bytes, layerCount: manifest.layers.count)
        let platform = configuration.platform
        if !platform.os.isEmpty, !Platform.current.runs(platform) {
            throw ImageError(
                .unsupported, image: image, step: "manifest",
                "the image is for \(platform), and this machine is \(Platform.current)",
                remedy: "push an image for \(Platform.current)")
        }
        let wanted = manifest.layers.indices.filter { !(skipsBase && manifest.layers[$0].role == .base) }
        try await pullLayers(manifest, configuration, wanted, reference)
        report(.phase("unpack"))
        let diffIDs = wanted.map { configuration.diffIDs[$0] }
        let root = try await putTogether(diffIDs, digest, reference, skipsBase: wanted.count < manifest.layers.count)
        await offload { [store] in store.remember(digest, for: reference) }
        return PulledImage(
            reference: reference, digest: digest, manifest: manifest, configuration: configuration, layers: diffIDs,
            root: root, receivedByteCount: received.values.reduce(0, +))
    }

    /// What is pulled belongs to no image until the end, so nothing may be collected meanwhile.
    private func keepCollectorsAway(_ image: String) async throws(ImageError) -> Int32 {
        while true {
            if let lock = store.tryLock("collect", shared: true) { return lock }
            guard client.remaining > .zero else { throw client.timeLimit(image, "store", "it is being cleaned up") }
            await sleep(for: .milliseconds(50))
        }
    }

    /// What an image is, without its layers: for one that is appended to.
    public func inspect(_ reference: ImageReference) async throws(ImageError) -> PackageBase {
        let image = "\(reference)"
        if let error = await offload({ [store] () -> ImageError? in
            do throws(ImageError) { try store.prepare(image: image) } catch { return error }
            return nil
        }) {
            throw error
        }
        let (manifest, digest) = try await manifest(reference, depth: 0)
        let bytes = try await smallBlob(manifest.configuration, reference)
        let configuration = try ManifestDecoder(image: image).configuration(bytes, layerCount: manifest.layers.count)
        return PackageBase(reference: reference, digest: digest, manifest: manifest, configuration: configuration)
    }

    private func manifest(
        _ reference: ImageReference, depth: Int
    ) async throws(ImageError) -> (Manifest, Digest) {
        let decoder = ManifestDecoder(image: "\(reference)")
        var digest = reference.digest
        let document: ManifestDocument
        if let known = digest, let bytes = await cached(known, Manifest.byteLimit) {
            document = try decoder.manifest(bytes, contentType: "")
        } else {
            let fetched = try await client.manifest(reference)
            document = try decoder.manifest(fetched.bytes, contentType: fetched.contentType)
            digest = fetched.digest
            try await keep(fetched.bytes, reference)
        }
        switch document {
        case .image(let manifest):
            guard let digest else { break }
            return (manifest, digest)
        case .index(let entries):
            guard depth < Self.indexDepth else { break }
            let chosen = try decoder.choose(entries, for: Platform.current)
            return try await self.manifest(reference.with(digest: chosen.digest), depth: depth + 1)
        }
        throw ImageError(
            .unsupported, image: "\(reference)", step: "manifest",
            "indexes are nested more than \(Self.indexDepth) deep", remedy: "push the image itself")
    }

    private func cached(_ digest: Digest, _ limit: Int) async -> [UInt8]? {
        await offload { [store] in store.blob(digest, limit: limit) }
    }

    private func keep(_ bytes: [UInt8], _ reference: ImageReference) async throws(ImageError) {
        let image = "\(reference)"
        let error = await offload { [store] () -> ImageError? in
            do throws(ImageError) { try store.keep(bytes, image: image) } catch { return error }
            return nil
        }
        if let error { throw error }
    }

    private func smallBlob(_ descriptor: Descriptor, _ reference: ImageReference) async throws(ImageError) -> [UInt8] {
        if let bytes = await cached(descriptor.digest, Manifest.configurationByteLimit) { return bytes }
        let bytes = try await client.blob(descriptor, of: reference, step: "configuration")
        try await keep(bytes, reference)
        return bytes
    }

    // MARK: Layers

    private func pullLayers(
        _ manifest: Manifest, _ configuration: ImageConfiguration, _ wanted: [Int], _ reference: ImageReference
    ) async throws(ImageError) {
        let diffIDs = configuration.diffIDs
        let present = await offload { [store] in Set(diffIDs.filter { store.hasLayer($0) }) }
        var progress = manifest.layers.indices.map { index in
            let layer = manifest.layers[index]
            let isHere = present.contains(diffIDs[index])
            return LayerProgress(
                digest: layer.digest, role: layer.role,
                state: !wanted.contains(index) ? .skipped : isHere ? .cached : .waiting,
                received: isHere ? layer.size : 0, size: layer.size)
        }
        report(.layers(progress))
        var seen: Set<Digest> = present
        // The largest first, so that the two ways are busy for the same time.
        var queue = wanted.filter { seen.insert(diffIDs[$0]).inserted }
            .sorted { manifest.layers[$0].size < manifest.layers[$1].size }
        guard !queue.isEmpty else { return }
        report(.phase("pull"))
        let lanes = (0..<min(Self.parallelLayers, queue.count)).map { _ in
            loopTask { [self] in
                while failure == nil, let index = queue.popLast() {
                    let pull = LayerPull(
                        store: store, client: client, reference: reference, descriptor: manifest.layers[index],
                        diffID: diffIDs[index], limits: limits
                    ) { [self] state, bytes in
                        if state == .downloading, progress[index].startedAt == 0 {
                            progress[index].startedAt = monotonicNanoseconds()
                            received[index] = -bytes
                        }
                        progress[index].state = state
                        progress[index].received = bytes
                        report(.layer(index, progress[index]))
                    }
                    running.append(pull)
                    do throws(ImageError) {
                        try await pull.run()
                        received[index] = max(0, (received[index] ?? 0) + progress[index].received)
                    } catch {
                        cancel(error)
                    }
                    running.removeAll { $0 === pull }
                }
            }
        }
        for lane in lanes { await lane.value }
        if let failure { throw failure }
    }

    private func putTogether(
        _ diffIDs: [Digest], _ digest: Digest, _ reference: ImageReference, skipsBase: Bool
    ) async throws(ImageError) -> String {
        let image = "\(reference)"
        let result = await offload { [store] () -> Result<String, ImageError> in
            do throws(ImageError) {
                return .success(try store.putTogether(diffIDs, digest, image: image, isPart: skipsBase))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}

extension ContentStore {
    /// The folder with an image's files, made from its layers when it is not there.
    func putTogether(
        _ diffIDs: [Digest], _ manifest: Digest, image: String, isPart: Bool
    ) throws(ImageError) -> String {
        let folder = rootFolder(manifest) + (isPart ? ".part" : "")
        let list = Array(diffIDs.map { "\($0)\n" }.joined().utf8)
        if isBelieved(folder), readFile(folder + "/layers", limit: 1 << 16) == list {
            utimensat(AT_FDCWD, folder, nil, 0)
            return folder + "/fs"
        }
        let temporary = "\(folder).\(getpid()).tmp"
        discard(temporary)
        do throws(SystemError) {
            try createFolders(temporary + "/fs")
        } catch {
            throw failure(error, image: image, step: "unpack")
        }
        do throws(ImageError) {
            let root = try ImageRoot(layers: diffIDs.map(layerFolder), image: image)
            try root.make(in: temporary + "/fs", final: folder + "/fs")
        } catch {
            discard(temporary)
            // Layers that only together do what they must not are not kept either.
            if error.kind == .hostileLayer { for diffID in diffIDs { discard(layerFolder(diffID)) } }
            throw error
        }
        do throws(SystemError) {
            try writeFileAtomically(temporary + "/layers", list)
            try markWhole(temporary)
        } catch {
            throw failure(error, image: image, step: "unpack")
        }
        if rename(temporary, folder) != 0 {
            // Another host was faster, or an old one is there that has other layers.
            if readFile(folder + "/layers", limit: 1 << 16) == list {
                discard(temporary)
            } else {
                discard(folder)
                guard rename(temporary, folder) == 0 else {
                    throw failure(
                        SystemError(errno: errno, call: "rename", subject: folder), image: image, step: "unpack")
                }
            }
        }
        return folder + "/fs"
    }
}
