/// Manifests, indexes and configurations: what an image consists of.
public import JSONText

/// The media types this module knows; OCI's and Docker's names for the same things.
public enum MediaType {
    public static let index = "application/vnd.oci.image.index.v1+json"
    public static let manifest = "application/vnd.oci.image.manifest.v1+json"
    public static let configuration = "application/vnd.oci.image.config.v1+json"
    public static let layerGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
    public static let dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
    public static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
    public static let dockerConfiguration = "application/vnd.docker.container.image.v1+json"
    public static let dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"

    /// What a client says it takes.
    public static let accepted = [index, manifest, dockerList, dockerManifest].joined(separator: ", ")

    static func isIndex(_ type: String) -> Bool { type == index || type == dockerList }
    static func isManifest(_ type: String) -> Bool { type == manifest || type == dockerManifest }
    static func isSchema1(_ type: String) -> Bool {
        type.hasPrefix("application/vnd.docker.distribution.manifest.v1+")
    }
    static func isLayer(_ type: String) -> Bool {
        let stems = [
            "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar",
        ]
        if stems.contains(where: { stem in ["", "+gzip", "+zstd"].contains { type == stem + $0 } }) { return true }
        return [
            dockerLayerGzip, "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        ].contains(type)
    }
}

/// What a layer is for; written as an annotation so that hosts can skip what they do not need.
public enum LayerRole: String, Sendable, CaseIterable {
    case base, dependencies, model, code

    /// The annotation's name.
    public static let annotation = "io.andiron.layer.role"
}

/// A blob as a manifest names it.
public struct Descriptor: Sendable, Hashable {
    public var mediaType: String
    public var digest: Digest
    public var size: Int
    public var annotations: [String: String] = [:]
    /// `os/architecture[/variant]`, in an index.
    public var platform: Platform?

    public init(mediaType: String, digest: Digest, size: Int, annotations: [String: String] = [:]) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.annotations = annotations
    }

    /// What the layer is for, when it says so.
    public var role: LayerRole? { annotations[LayerRole.annotation].flatMap { LayerRole(rawValue: $0) } }
}

/// An operating system and a processor.
public struct Platform: Sendable, Hashable, CustomStringConvertible {
    public let os: String
    public let architecture: String
    public let variant: String

    public init(os: String, architecture: String, variant: String = "") {
        self.os = os
        self.architecture = architecture
        self.variant = variant
    }

    /// This machine.
    public static var current: Platform {
        #if arch(arm64)
        Platform(os: "linux", architecture: "arm64", variant: "v8")
        #else
        Platform(os: "linux", architecture: "amd64")
        #endif
    }

    /// Whether an image for `other` runs here; a variant that is not stated is no obstacle.
    public func runs(_ other: Platform) -> Bool {
        os == other.os && architecture == other.architecture
            && (variant.isEmpty || other.variant.isEmpty || variant == other.variant)
    }

    public var description: String { "\(os)/\(architecture)" + (variant.isEmpty ? "" : "/\(variant)") }
}

/// An image manifest.
public struct Manifest: Sendable {
    public var mediaType: String
    public var configuration: Descriptor
    public var layers: [Descriptor]
    public var annotations: [String: String]

    /// Bytes of a manifest or index.
    public static let byteLimit = 4 << 20
    /// Bytes of a configuration.
    public static let configurationByteLimit = 8 << 20
    /// Layers of an image.
    public static let layerLimit = 512
    /// Bytes of a layer as it is sent: no more than it may have unpacked, since all of it is kept on the way.
    public static let layerByteLimit = UnpackLimits().totalByteCount

    public init(
        mediaType: String, configuration: Descriptor, layers: [Descriptor], annotations: [String: String] = [:]
    ) {
        self.mediaType = mediaType
        self.configuration = configuration
        self.layers = layers
        self.annotations = annotations
    }
}

/// An image configuration, as far as it matters here.
public struct ImageConfiguration: Sendable {
    public var platform: Platform
    /// Digests of the layers' uncompressed contents.
    public var diffIDs: [Digest]
    /// `NAME=value`.
    public var environment: [String]
    public var labels: [String: String]
    public var workingFolder: String
    /// The document as it is, to be appended to.
    public let document: JSONValue

    /// The value of a variable the image sets.
    public func variable(_ name: String) -> String? {
        environment.last { $0.hasPrefix(name + "=") }.map { String($0.dropFirst(name.count + 1)) }
    }
}
