/// Chunked bodies: no crash, and the same body however they are cut.
import CFuzzer
import HTTPMessages

@_cdecl("chunked_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    let whole = decode(bytes, step: max(count, 1))
    precondition(decode(bytes, step: 1) == whole, "another body when cut")
    return 0
}

private func decode(_ bytes: [UInt8], step: Int) -> [UInt8]? {
    var decoder = ChunkedDecoder(bodyLimit: 1 << 16)
    var body: [UInt8] = []
    var offset = 0
    while offset < bytes.count {
        let piece = Array(bytes[offset..<min(bytes.count, offset + step)])
        let (consumed, progress) = decoder.feed(piece.span, into: &body)
        offset += consumed
        switch progress {
        case .complete: return body
        case .failed: return nil
        case .needsMore: break
        }
    }
    return nil
}
