/// The frame reader's door for the fuzz target.

/// How many frames there are before the end or the first error.
public func countFrames(_ bytes: [UInt8], step: Int) -> Int {
    var reader = WorkerFrameReader()
    var frames = 0
    var offset = 0
    while offset < bytes.count {
        let piece = Array(bytes[offset..<min(bytes.count, offset + step)])
        offset += piece.count
        let failed = piece.withUnsafeBytes { memory in
            (try? reader.feed(memory) { _ in frames += 1 }) == nil
        }
        if failed { break }
    }
    return frames
}
