/// Worker frames: no crash, and the same frames however the bytes are cut.
import CFuzzer
import WorkerFrames

@_cdecl("frames_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    let whole = countFrames(bytes, step: max(count, 1))
    let cut = countFrames(bytes, step: 3)
    precondition(whole == cut, "another number of frames when cut")
    return 0
}
