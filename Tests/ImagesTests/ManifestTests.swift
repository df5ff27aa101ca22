import Testing

@testable import Images

@Suite struct ManifestTests {
    static let digest = "sha256:" + String(repeating: "a", count: 64)
    static let decoder = ManifestDecoder(image: "r.io/package:1")

    static func descriptor(_ type: String, size: Int = 1) -> String {
        #"{"mediaType":"\#(type)","digest":"\#(digest)","size":\#(size)}"#
    }

    static func manifest(_ layers: [String], config: String = MediaType.configuration, more: String = "") -> String {
        #"{"schemaVersion":2,\#(more)"config":\#(descriptor(config)),"layers":[\#(layers.joined(separator: ","))]}"#
    }

    static func decode(_ text: String, _ type: String = MediaType.manifest) throws(ImageError) -> ManifestDocument {
        try decoder.manifest(Array(text.utf8), contentType: type)
    }

    @Test(arguments: [
        MediaType.layerGzip, MediaType.dockerLayerGzip, "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ]) func `layers of all known kinds are read`(type: String) throws {
        guard case .image(let manifest) = try Self.decode(Self.manifest([Self.descriptor(type)])) else {
            Issue.record("not an image")
            return
        }
        #expect(manifest.layers.map(\.mediaType) == [type])
    }

    @Test(arguments: [
        (#"{"schemaVersion":1,"name":"x","tag":"y"}"#, MediaType.manifest, "AN9006", "has not been supported yet"),
        ("{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "AN9006", "has not been supported yet"),
        ("<html>", MediaType.manifest, "AN9005", "is not JSON"),
        ("[]", MediaType.manifest, "AN9005", "not an object"),
        (manifest([descriptor("application/x-cargo")]), MediaType.manifest, "AN9006", "unknown media type"),
        (manifest([], config: "application/x-other"), MediaType.manifest, "AN9006", "not that of a runnable image"),
        (
            manifest([], more: #""mediaType":"\#(MediaType.index)","#), MediaType.manifest, "AN9005",
            "and the registry says"
        ),
        (manifest([], more: #""manifests":[],"#), MediaType.manifest, "AN9005", "both layers and manifests"),
        (#"{"schemaVersion":2}"#, MediaType.manifest, "AN9005", "has no config"),
        (manifest([descriptor(MediaType.layerGzip, size: -1)]), MediaType.manifest, "AN9005", "descriptor"),
        (manifest([]).replacing("sha256:", with: "sha512:"), MediaType.manifest, "AN9006", "is not sha256"),
        (
            manifest(Array(repeating: descriptor(MediaType.layerGzip), count: Manifest.layerLimit + 1)),
            MediaType.manifest, "AN9009", "the limit is 512"
        ),
    ]) func `what is no supported image is refused with the reason`(
        text: String, type: String, code: String, reason: String
    ) {
        #expect { try Self.decode(text, type) } throws: { error in
            let error = error as? ImageError
            return error?.code == code && error?.reason.contains(reason) == true
        }
    }

    @Test func `as many layers as the limit are read`() throws {
        let layers = Array(repeating: Self.descriptor(MediaType.layerGzip), count: Manifest.layerLimit)
        _ = try Self.decode(Self.manifest(layers))
    }

    @Test func `a configuration has a diff_id for each layer`() throws {
        let text =
            #"{"os":"linux","architecture":"amd64","config":{"Env":["A=1","B=x=y"]},"rootfs":{"diff_ids":["\#(Self.digest)"]}}"#
        let configuration = try Self.decoder.configuration(Array(text.utf8), layerCount: 1)
        #expect(configuration.variable("B") == "x=y")
        #expect(configuration.diffIDs.count == 1)
        #expect { try Self.decoder.configuration(Array(text.utf8), layerCount: 2) } throws: {
            ($0 as? ImageError)?.reason == "has 1 diff_ids for 2 layers"
        }
    }

    @Test func `an index gives the entry for the platform, and says what there is when there is none`() throws {
        func entry(_ platform: Platform?) -> Descriptor {
            var entry = Descriptor(
                mediaType: MediaType.manifest, digest: Digest(of: Array("\(platform as Any)".utf8)), size: 1)
            entry.platform = platform
            return entry
        }
        let amd = Platform(os: "linux", architecture: "amd64")
        let arm = Platform(os: "linux", architecture: "arm64", variant: "v8")
        let chosen = try Self.decoder.choose([entry(arm), entry(amd)], for: amd)
        #expect(chosen.platform == amd)
        #expect(try Self.decoder.choose([entry(nil)], for: amd).platform == nil)
        #expect { try Self.decoder.choose([entry(arm)], for: amd) } throws: { error in
            let error = error as? ImageError
            return error?.reason.contains("no image found in image index for architecture amd64") == true
                && error?.remedy?.contains("linux/arm64/v8") == true
        }
    }
}
