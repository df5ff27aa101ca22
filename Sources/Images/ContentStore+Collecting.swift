/// What is not used is deleted: on command, and when the store has grown past its size.
internal import CArchive
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc

/// What was deleted, or would be.
public struct CollectedContent: Sendable {
    public var images = 0
    public var layers = 0
    public var blobs = 0
    public var byteCount = 0
    /// Images are being pulled, so nothing was done.
    public var isBusy = false
}

/// An image whose files are in the store.
public struct StoredImage: Sendable {
    public let digest: Digest
    public let layers: [Digest]
    /// When it was started or pulled last, seconds since 1970.
    public let usedAt: Int
    /// Bytes of its files.
    public let byteCount: Int
}

extension ContentStore {
    /// Bytes the store may have before the images that were not used for longest go.
    public static let defaultByteLimit = 50 << 30

    /// The images that are here, the one used last first.
    public func images() -> [StoredImage] {
        folderEntries(folder + "/roots").compactMap { name -> StoredImage? in
            let root = "\(folder)/roots/\(name)"
            guard let digest = Digest(hex: name.replacing(".part", with: "")),
                let bytes = readFile(root + "/layers", limit: 1 << 16)
            else { return nil }
            let layers = String(decoding: bytes, as: UTF8.self).split(separator: "\n").compactMap { Digest($0) }
            var information = stat()
            stat(root, &information)
            let size = layers.reduce(0) { $0 + layerByteCount($1) }
            return StoredImage(
                digest: digest, layers: layers, usedAt: Int(information.st_mtim.tv_sec), byteCount: size)
        }.sorted { $0.usedAt > $1.usedAt }
    }

    private func layerByteCount(_ diffID: Digest) -> Int {
        LayerRecord(path: layerFolder(diffID) + "/record.json")?.byteCount ?? 0
    }

    /// Marks an image as used while the descriptor is open; nothing of it is deleted meanwhile.
    public func use(_ manifest: Digest) -> Int32? { tryLock("root-\(manifest.hex)", shared: true) }

    /// Deletes images until the rest has at most `limit` bytes, and whatever belongs to no image.
    ///
    /// Images in use stay. What is deleted is moved away first, so that an unpack that begins meanwhile is not
    /// slowed down by it; ``emptyTrash()`` does the rest.
    ///
    /// - Parameter limit: 0 deletes all that is not in use.
    @discardableResult
    public func collect(keeping limit: Int) -> CollectedContent {
        // Not while an image is pulled here or by another host: what it needs belongs to no image yet.
        guard let guardLock = tryLock("collect") else { return CollectedContent(isBusy: true) }
        defer { close(guardLock) }
        var collected = CollectedContent()
        var kept: Set<Digest> = []
        var keptManifests: Set<Digest> = []
        var total = 0
        for image in images() {
            let fresh = image.layers.filter { !kept.contains($0) }.reduce(0) { $0 + layerByteCount($1) }
            let lock = tryLock("root-\(image.digest.hex)")
            let isUsed = lock == nil
            if isUsed || total + fresh <= limit, limit > 0 || isUsed {
                total += fresh
                kept.formUnion(image.layers)
                keptManifests.insert(image.digest)
            } else {
                collected.images += 1
                discard(rootFolder(image.digest))
                discard(rootFolder(image.digest) + ".part")
            }
            if let lock { close(lock) }
        }
        collectLayers(keeping: kept, &collected)
        collectBlobs(keeping: keptManifests, all: limit == 0, &collected)
        return collected
    }

    private func collectLayers(keeping kept: Set<Digest>, _ collected: inout CollectedContent) {
        for name in folderEntries(folder + "/layers") {
            let hex = name.replacing(".tmp", with: "")
            guard let digest = Digest(hex: hex), !kept.contains(digest) else { continue }
            // Somebody is unpacking it.
            guard let lock = tryLock("layer-\(hex)") else { continue }
            defer { close(lock) }
            collected.layers += 1
            collected.byteCount += layerByteCount(digest)
            discard("\(folder)/layers/\(name)")
        }
    }

    private func collectBlobs(keeping manifests: Set<Digest>, all: Bool, _ collected: inout CollectedContent) {
        var kept = manifests
        let decoder = ManifestDecoder(image: "")
        for manifest in manifests {
            guard let bytes = blob(manifest, limit: Manifest.byteLimit),
                case .image(let image)? = try? decoder.manifest(bytes, contentType: "")
            else { continue }
            kept.insert(image.configuration.digest)
            kept.formUnion(image.layers.map(\.digest))
        }
        for place in ["blobs", "partial"] {
            for name in folderEntries("\(folder)/\(place)") {
                let path = "\(folder)/\(place)/\(name)"
                if let digest = Digest(hex: name), kept.contains(digest) { continue }
                // Parts of layers are for the next try, and packages for the next push.
                guard age(path) > (all ? 60 : 7 * 86400) else { continue }
                var information = stat()
                if lstat(path, &information) == 0 { collected.byteCount += Int(information.st_size) }
                collected.blobs += 1
                unlink(path)
            }
        }
    }

    /// Seconds since something was changed.
    func age(_ path: String) -> Int {
        var information = stat()
        guard lstat(path, &information) == 0 else { return 0 }
        return time(nil) - Int(information.st_ctim.tv_sec)
    }
}
