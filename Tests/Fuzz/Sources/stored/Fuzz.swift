/// Values that Redis gives back: no input may crash; what is accepted is stored and read the same again.
internal import CFuzzer
internal import EventLoops

private func check(_ bytes: UnsafeRawBufferPointer) {
    let limit = 1 << 16
    let stored = Array(bytes)
    _ = CachedResult(stored: stored, limit: limit)
    // Nearly nothing has the right checksum; with it put right the rest is reached.
    guard stored.count > 12 else { return }
    var repaired = Array("AIC2".utf8) + SHA256Digest(of: Array(stored[12...])).bytes.prefix(8) + stored[12...]
    if let result = CachedResult(stored: repaired, limit: limit) {
        precondition(result.body.count <= limit, "a body past its limit")
        guard let again = CachedResult(stored: result.stored(compressAbove: 64), limit: limit) else {
            preconditionFailure("what was read cannot be stored")
        }
        precondition(again.body == result.body && again.fields == result.fields, "stored and read")
    }
    repaired[repaired.count - 1] ^= 1
    precondition(CachedResult(stored: repaired, limit: limit) == nil, "a damaged value is accepted")
}

@_cdecl("stored_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { data, count in
        check(UnsafeRawBufferPointer(start: data, count: count))
        return 0
    }
}
