/// Reading manifests, indexes and configurations; nothing in them is believed unchecked.
internal import Diagnostics
internal import JSONText

/// What a manifest request brought: an image, or a choice of images.
public enum ManifestDocument: Sendable {
    case image(Manifest)
    case index([Descriptor])
}

/// Reads documents of one image, whose name is put into errors.
public struct ManifestDecoder: Sendable {
    let image: String

    /// - Parameter image: as the user would name it.
    public init(image: String) { self.image = image }

    private func unsupported(_ reason: String, _ remedy: String? = nil) -> ImageError {
        ImageError(.unsupported, image: image, step: "manifest", reason, remedy: remedy)
    }

    private func broken(_ step: String, _ reason: String) -> ImageError {
        ImageError(
            .protocolViolation, image: image, step: step, reason,
            remedy: "push the image again with a tool that writes OCI or Docker v2 manifests")
    }

    private func parse(_ bytes: [UInt8], _ step: String) throws(ImageError) -> JSONValue {
        do {
            return try JSONParser.parse(bytes)
        } catch {
            throw broken(step, "is not JSON: \(error.reason) at byte \(error.offset)")
        }
    }

    /// Decodes a manifest or an index.
    ///
    /// - Parameter contentType: the media type the registry gave, without parameters; empty for none.
    public func manifest(_ bytes: [UInt8], contentType: String) throws(ImageError) -> ManifestDocument {
        if MediaType.isSchema1(contentType) {
            throw unsupported(
                "Unsupported image manifest. The manifest with version '\(contentType)' has not been supported yet.",
                "push the image again with a current Docker, podman or skopeo")
        }
        let root = try parse(bytes, "manifest")
        guard root.members != nil else { throw broken("manifest", "is \(root.kindName), not an object") }
        if root["schemaVersion"]?.integer == 1 {
            throw unsupported(
                "Unsupported image manifest. The manifest with version 'application/vnd.docker.distribution.manifest.v1+json' has not been supported yet.",
                "push the image again with a current Docker, podman or skopeo")
        }
        guard root["schemaVersion"]?.integer == 2 else { throw broken("manifest", "has no schemaVersion 2") }
        let stated = root["mediaType"]?.string
        if let stated, !contentType.isEmpty, stated != contentType {
            throw broken("manifest", "says it is '\(stated)', and the registry says '\(contentType)'")
        }
        var type = stated ?? contentType
        if type.isEmpty { type = root["manifests"] == nil ? MediaType.manifest : MediaType.index }
        if root["layers"] != nil, root["manifests"] != nil {
            throw broken("manifest", "has both layers and manifests")
        }
        if MediaType.isIndex(type) {
            guard let entries = root["manifests"]?.elements else { throw broken("manifest", "has no manifests") }
            var found: [Descriptor] = []
            for entry in entries { found.append(try descriptor(entry)) }
            return .index(found)
        }
        guard MediaType.isManifest(type) else {
            throw unsupported("the media type '\(type)' is not one of an image", "is it an image, and not an artifact?")
        }
        return .image(try image(root, type))
    }

    private func image(_ root: JSONValue, _ type: String) throws(ImageError) -> Manifest {
        guard let configuration = root["config"] else { throw broken("manifest", "has no config") }
        let descriptor = try descriptor(configuration)
        guard [MediaType.configuration, MediaType.dockerConfiguration].contains(descriptor.mediaType) else {
            throw unsupported(
                "its configuration is '\(descriptor.mediaType)', which is not that of a runnable image",
                "is it an image, and not an artifact?")
        }
        guard descriptor.size <= Manifest.configurationByteLimit else {
            throw broken("manifest", "has a configuration of \(descriptor.size) bytes")
        }
        let elements = root["layers"]?.elements ?? []
        guard elements.count <= Manifest.layerLimit else {
            throw ImageError(
                .limit, image: image, step: "manifest",
                "has \(elements.count) layers; the limit is \(Manifest.layerLimit)")
        }
        var layers: [Descriptor] = []
        for element in elements {
            let layer = try self.descriptor(element)
            guard MediaType.isLayer(layer.mediaType) else {
                throw unsupported("the layer \(layer.digest.short) has the unknown media type '\(layer.mediaType)'")
            }
            guard layer.size <= Manifest.layerByteLimit else {
                throw ImageError(
                    .limit, image: image, step: "manifest",
                    "the layer \(layer.digest.short) has \(layer.size) bytes; the limit is \(Manifest.layerByteLimit)")
            }
            layers.append(layer)
        }
        return Manifest(
            mediaType: type, configuration: descriptor, layers: layers, annotations: texts(root["annotations"]))
    }

    private func descriptor(_ value: JSONValue) throws(ImageError) -> Descriptor {
        guard let type = value["mediaType"]?.string, let digest = value["digest"]?.string,
            let size = value["size"]?.integer, size >= 0
        else { throw broken("manifest", "has a descriptor without mediaType, digest or size") }
        guard let parsed = Digest(digest) else {
            throw unsupported("the digest '\(digest)' is not sha256 and 64 lower-case digits")
        }
        var result = Descriptor(
            mediaType: type, digest: parsed, size: size, annotations: texts(value["annotations"]))
        if let platform = value["platform"] { result.platform = self.platform(platform) }
        return result
    }

    private func texts(_ value: JSONValue?) -> [String: String] {
        Dictionary((value?.members ?? []).map { ($0.name, $0.value.string ?? "") }) { _, last in last }
    }

    private func platform(_ value: JSONValue) -> Platform {
        Platform(
            os: value["os"]?.string ?? "", architecture: value["architecture"]?.string ?? "",
            variant: value["variant"]?.string ?? "")
    }

    /// Decodes a configuration and holds it against the manifest.
    public func configuration(_ bytes: [UInt8], layerCount: Int) throws(ImageError) -> ImageConfiguration {
        let root = try parse(bytes, "configuration")
        let runtime = root["config"]
        var diffIDs: [Digest] = []
        for element in root["rootfs"]?["diff_ids"]?.elements ?? [] {
            guard let digest = Digest(element.string ?? "") else {
                throw broken("configuration", "has a diff_id that is no sha256 digest")
            }
            diffIDs.append(digest)
        }
        guard diffIDs.count == layerCount else {
            throw broken("configuration", "has \(diffIDs.count) diff_ids for \(layerCount) layers")
        }
        return ImageConfiguration(
            platform: platform(root), diffIDs: diffIDs,
            environment: (runtime?["Env"]?.elements ?? []).compactMap(\.string), labels: texts(runtime?["Labels"]),
            workingFolder: runtime?["WorkingDir"]?.string ?? "", document: root)
    }

    /// The entry of an index that runs here: the first whose platform fits.
    public func choose(_ entries: [Descriptor], for platform: Platform) throws(ImageError) -> Descriptor {
        let candidates = entries.filter { MediaType.isManifest($0.mediaType) || MediaType.isIndex($0.mediaType) }
        if let exact = candidates.first(where: { $0.platform.map { platform.runs($0) } ?? false }) { return exact }
        // An entry that does not say is taken on trust; its configuration is checked later.
        if let silent = candidates.first(where: { $0.platform == nil }) { return silent }
        let offered = candidates.compactMap { $0.platform?.description }.joined(separator: ", ")
        throw unsupported(
            "no image found in image index for architecture \(platform.architecture), variant \"\(platform.variant)\", OS \(platform.os)",
            offered.isEmpty ? "the index is empty" : "it has images for \(offered)")
    }
}
