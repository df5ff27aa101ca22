import Glibc
import Testing

@testable import Images

/// Each limit of a layer at its edge, where it is taken, and one past it, where it is refused.
@Suite struct UnpackLimitsTests {
    private struct Tar {
        var bytes: [UInt8] = []

        /// - Parameter size: what the head says, when that is not the truth.
        mutating func add(
            _ path: String, _ content: [UInt8] = [], type: Character = "0", target: String = "", size: Int? = nil
        ) {
            if path.utf8.count > 100 { head("././@LongLink", Array(path.utf8) + [0], type: "L") }
            if target.utf8.count > 100 { head("././@LongLink", Array(target.utf8) + [0], type: "K") }
            head(String(path.prefix(100)), content, type: type, target: String(target.prefix(100)), size: size)
        }

        private mutating func head(
            _ name: String, _ content: [UInt8], type: Character, target: String = "", size: Int? = nil
        ) {
            var head = [UInt8](repeating: 0, count: 512)
            func put(_ text: String, _ offset: Int) {
                for (i, byte) in text.utf8.enumerated() { head[offset + i] = byte }
            }
            func octal(_ value: Int, _ width: Int) -> String {
                let digits = String(value, radix: 8)
                return String(repeating: "0", count: max(0, width - digits.count)) + digits
            }
            put(name, 0)
            put(octal(0o644, 7), 100)
            put(octal(0, 7), 108)
            put(octal(0, 7), 116)
            put(octal(size ?? content.count, 11), 124)
            put(octal(0, 11), 136)
            put("        ", 148)
            put(String(type), 156)
            put(target, 157)
            put("ustar\u{0}00", 257)
            put(octal(head.reduce(0) { $0 + Int($1) }, 6) + "\u{0} ", 148)
            bytes += head + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
        }

        var whole: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }
    }

    /// Unpacks a layer, and removes it again whatever it has.
    private func unpack(
        _ layer: [UInt8], diffID: Digest? = nil, _ change: (inout UnpackLimits) -> Void = { _ in }
    ) throws -> LayerRecord {
        var limits = UnpackLimits()
        change(&limits)
        var template = Array("/tmp/andiron-limits-XXXXXX".utf8CString)
        let folder = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
        }
        defer {
            removeTree(folder)
            #expect(access(folder, F_OK) != 0, "something of it could not be removed")
        }
        let queue = LayerQueue {}
        layer.withUnsafeBytes { _ = queue.offer($0) }
        queue.end()
        let source = LayerSource(
            descriptor: Descriptor(mediaType: MediaType.layerGzip, digest: Digest(of: layer), size: layer.count),
            image: "test", queue: queue, file: -1, path: "", existing: 0)
        return try unpackLayer(
            source, into: folder, expecting: diffID ?? Digest(of: layer), limits: limits, image: "test", step: "layer")
    }

    private func refusal(_ code: String, _ words: String) -> (any Error) -> Bool {
        { error in
            let error = error as? ImageError
            let isRight = error?.code == code && error?.reason.contains(words) == true
            if !isRight { Issue.record("\(error as Any)") }
            return isRight
        }
    }

    @Test func `entries`() throws {
        var tar = Tar()
        for index in 0..<3 { tar.add("f\(index)") }
        #expect(try unpack(tar.whole) { $0.entryCount = 3 }.entryCount == 3)
        #expect { try unpack(tar.whole) { $0.entryCount = 2 } } throws: { refusal("AN9009", "more than 2 entries")($0) }
    }

    @Test func `components of a path`() throws {
        func deep(_ count: Int) -> [UInt8] {
            var tar = Tar()
            tar.add((0..<count).map { _ in "d" }.joined(separator: "/"), [1])
            return tar.whole
        }
        let limit = UnpackLimits().depth
        _ = try unpack(deep(limit))
        #expect { try unpack(deep(limit + 1)) } throws: { refusal("AN9009", "257 folders deep; the limit is 256")($0) }
    }

    @Test func `bytes of a name`() throws {
        func named(_ count: Int) -> [UInt8] {
            var tar = Tar()
            tar.add(String(repeating: "n", count: count), [1])
            return tar.whole
        }
        _ = try unpack(named(255))
        #expect { try unpack(named(256)) } throws: { refusal("AN9009", "256 bytes; the limit is 255")($0) }
    }

    @Test func `bytes of a path`() throws {
        func path(_ count: Int) -> [UInt8] {
            var text = ""
            while text.utf8.count + 201 <= count { text += String(repeating: "p", count: 200) + "/" }
            text += String(repeating: "q", count: count - text.utf8.count)
            var tar = Tar()
            tar.add(text, [1])
            return tar.whole
        }
        let limit = UnpackLimits().pathByteCount
        _ = try unpack(path(limit))
        #expect { try unpack(path(limit + 1)) } throws: { refusal("AN9009", "4097 bytes; the limit is 4096")($0) }
    }

    @Test func `bytes of what a link says`() throws {
        func link(_ count: Int) -> [UInt8] {
            var tar = Tar()
            tar.add("link", type: "2", target: String(repeating: "t", count: count))
            return tar.whole
        }
        // The kernel itself takes 4095.
        #expect(try unpack(link(4095)).links["link"]?.count == 4095)
        #expect { try unpack(link(4097)) } throws: { refusal("AN9008", "a link to a name of 4097 bytes")($0) }
    }

    @Test func `bytes of a file and of all files`() throws {
        var tar = Tar()
        tar.add("a", [UInt8](repeating: 1, count: 1000))
        tar.add("b", [UInt8](repeating: 2, count: 500))
        #expect(
            try unpack(tar.whole) {
                $0.fileByteCount = 1000
                $0.totalByteCount = 1500 + 4096
            }.byteCount == 1500)
        #expect { try unpack(tar.whole) { $0.fileByteCount = 999 } } throws: {
            refusal("AN9009", "a file of 1000 bytes; the limit is 999")($0)
        }
        // The tar's own bytes count as what comes out of the compression.
        let count = tar.whole.count
        _ = try unpack(tar.whole) { $0.totalByteCount = count }
        #expect { try unpack(tar.whole) { $0.totalByteCount = count - 1 } } throws: {
            refusal("AN9009", "unpacks to more than \(count - 1) bytes")($0)
        }
        #expect { try unpack(tar.whole) { $0.totalByteCount = 1499 } } throws: {
            refusal("AN9009", "more than 1499 bytes")($0)
        }
    }

    @Test func `a file that says it is larger than all may be`() throws {
        var tar = Tar()
        tar.add("giant", size: 8 << 30)
        #expect { try unpack(tar.whole) } throws: { refusal("AN9007", "tar")($0) }
        var past = Tar()
        past.add("giant", size: (8 << 30) - 1)
        #expect { try unpack(past.whole) { $0.fileByteCount = (8 << 30) - 2 } } throws: {
            refusal("AN9009", "the limit is \((8 << 30) - 2)")($0)
        }
    }

    /// 100 000 zeros in a tar of 102 400 bytes, 183 bytes by gzip, and the tar's digest.
    private static let zeros = [
        "H4sIAAAAAAACA+3NsQmAMABE0YziCMEEncfCWki0cXqDiOAAWsh7zYdrbp/LUsO7YjPkfLZ5NsXU53u79jGmHLoYPrDVdSrtMgAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAH93APh61LMAkAEA",
    ].joined()
    private static let digestOfZeros =
        "sha256:f74881568388218cb7e9a3aaadef1e303d8c00073421532a2b1ba3dd523b7966"

    @Test func `times its packed size`() throws {
        let layer = try #require(decodeBase64(Self.zeros))
        let (packed, unpacked) = (layer.count, 102_400)
        let ratio = unpacked / packed
        let diffID = try #require(Digest(Self.digestOfZeros))
        _ = try unpack(layer, diffID: diffID) {
            $0.ratio = ratio
            $0.ratioFreeByteCount = 0
        }
        #expect {
            try unpack(layer, diffID: diffID) {
                $0.ratio = ratio - 1
                $0.ratioFreeByteCount = 0
            }
        } throws: { refusal("AN9009", "as a bomb does")($0) }
        // So much is unpacked without looking, and one byte more is looked at.
        _ = try unpack(layer, diffID: diffID) {
            $0.ratio = 1
            $0.ratioFreeByteCount = unpacked
        }
        #expect {
            try unpack(layer, diffID: diffID) {
                $0.ratio = 1
                $0.ratioFreeByteCount = unpacked - 1
            }
        } throws: { refusal("AN9009", "as a bomb does")($0) }
    }

    @Test func `links that are followed in one path`() throws {
        func chain(_ count: Int) -> [UInt8] {
            var tar = Tar()
            tar.add("end", type: "5")
            for index in 0..<count { tar.add("l\(index)", type: "2", target: index == 0 ? "end" : "l\(index - 1)") }
            tar.add("l\(count - 1)/file", [1])
            return tar.whole
        }
        _ = try unpack(chain(40))
        #expect { try unpack(chain(41)) } throws: { refusal("AN9008", "in a circle")($0) }
    }

    @Test(arguments: [(Manifest.configurationByteLimit, true), (Manifest.configurationByteLimit + 1, false)])
    func `bytes of a configuration`(size: Int, isTaken: Bool) {
        let digest = "sha256:" + String(repeating: "a", count: 64)
        let text =
            #"{"schemaVersion":2,"config":{"mediaType":"\#(MediaType.configuration)","digest":"\#(digest)","size":\#(size)},"layers":[]}"#
        let decoded = try? ManifestDecoder(image: "test").manifest(Array(text.utf8), contentType: MediaType.manifest)
        #expect((decoded != nil) == isTaken)
    }

    @Test(arguments: [(Manifest.layerByteLimit, true), (Manifest.layerByteLimit + 1, false), (Int.max, false)])
    func `bytes of a layer as it is sent`(size: Int, isTaken: Bool) {
        let digest = "sha256:" + String(repeating: "a", count: 64)
        let text =
            #"{"schemaVersion":2,"config":{"mediaType":"\#(MediaType.configuration)","digest":"\#(digest)","size":1},"layers":[{"mediaType":"\#(MediaType.layerGzip)","digest":"\#(digest)","size":\#(size)}]}"#
        do {
            _ = try ManifestDecoder(image: "test").manifest(Array(text.utf8), contentType: MediaType.manifest)
            #expect(isTaken)
        } catch {
            #expect(!isTaken && error.code == "AN9009" && error.reason.contains("the limit is 17179869184"))
        }
    }
}
