/// Layers: whatever the bytes are, nothing is written outside of the folder, and memory and disk stay bounded.
import CFuzzer
import Glibc

@testable import Images

@_cdecl("layer_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private let place: String = {
    var template = Array("/tmp/andiron-fuzz-XXXXXX".utf8CString)
    return template.withUnsafeMutableBufferPointer { buffer in
        buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? "/tmp/andiron-fuzz"
    }
}()

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    let folder = place + "/inside"
    mkdir(folder, 0o755)
    defer { removeTree(folder) }
    var limits = UnpackLimits()
    limits.entryCount = 200
    limits.totalByteCount = 1 << 20
    limits.fileByteCount = 1 << 19
    let queue = LayerQueue {}
    bytes.withUnsafeBytes { _ = queue.offer($0) }
    queue.end()
    let digest = Digest(of: bytes)
    let source = LayerSource(
        descriptor: Descriptor(mediaType: MediaType.layerGzip, digest: digest, size: bytes.count), image: "fuzz",
        queue: queue, file: -1, path: "", existing: 0)
    _ = try? unpackLayer(source, into: folder, expecting: digest, limits: limits, image: "fuzz", step: "layer")
    var names = 0
    if let stream = opendir(place) {
        while readdir(stream) != nil { names += 1 }
        closedir(stream)
    }
    precondition(names == 3, "something was written beside the folder")
    return 0
}
