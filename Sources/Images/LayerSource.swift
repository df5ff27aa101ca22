/// A layer's compressed bytes on the thread: from the file of an earlier try first, then from the queue; each
/// byte is hashed, counted and kept.
internal import EventLoops
internal import Glibc

/// Reads one layer's bytes in order.
final class LayerSource {
    private let descriptor: Descriptor
    private let image: String
    private let queue: LayerQueue
    private let file: Int32
    private let path: String
    private var hasher = SHA256Hasher()
    private var fromFile: Int
    private var buffer = [UInt8](repeating: 0, count: 256 << 10)
    private(set) var byteCount = 0

    /// - Parameters:
    ///   - file: where the bytes are kept; -1 keeps none.
    ///   - existing: bytes that are in the file already.
    init(
        descriptor: Descriptor, image: String, queue: LayerQueue, file: Int32, path: String, existing: Int
    ) {
        self.descriptor = descriptor
        self.image = image
        self.queue = queue
        self.file = file
        self.path = path
        fromFile = existing
    }

    private var step: String { "layer \(descriptor.digest.short)" }

    /// Gives the next bytes to `body`; false at the end.
    func next(_ body: (UnsafeRawBufferPointer) -> Void) throws(ImageError) -> Bool {
        if fromFile > 0 {
            let count = pread(file, &buffer, min(buffer.count, fromFile), off_t(byteCount))
            guard count > 0 else { throw disk("read") }
            fromFile -= count
            take(buffer, count, body)
            return true
        }
        switch queue.next() {
        case .end: return false
        case .failed(let error): throw error
        case .bytes(let chunk):
            guard byteCount + chunk.count <= descriptor.size else {
                throw ImageError(
                    .verification, image: image, step: step,
                    "more than the promised \(descriptor.size) bytes come", remedy: "the image was pushed wrong")
            }
            try write(chunk)
            take(chunk, chunk.count, body)
            return true
        }
    }

    private func take(_ bytes: [UInt8], _ count: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
        bytes.withUnsafeBytes { memory in
            let part = UnsafeRawBufferPointer(rebasing: memory[..<count])
            hasher.update(part)
            byteCount += count
            body(part)
        }
    }

    private func write(_ chunk: [UInt8]) throws(ImageError) {
        guard file >= 0 else { return }
        var offset = 0
        while offset < chunk.count {
            let count = chunk.withUnsafeBytes {
                pwrite(file, $0.baseAddress?.advanced(by: offset), $0.count - offset, off_t(byteCount + offset))
            }
            guard count > 0 else { throw disk("write") }
            offset += count
        }
    }

    private func disk(_ call: String) -> ImageError {
        let error = SystemError(errno: errno, call: call, subject: path)
        return ImageError(
            .store, image: image, step: step, error.message,
            remedy: error.symbol == "ENOSPC" ? "free some space, for example with: andiron image prune" : nil)
    }

    /// Reads what is left and compares size and digest with what was promised.
    func finish() throws(ImageError) {
        while try next({ _ in }) {}
        guard byteCount == descriptor.size else {
            throw ImageError(
                .verification, image: image, step: step,
                "has \(byteCount) bytes; the manifest promised \(descriptor.size)",
                remedy: "the image was pushed wrong")
        }
        let digest = Digest(hasher)
        guard digest == descriptor.digest else {
            throw ImageError(
                .verification, image: image, step: step,
                "the digest of what came is \(digest), and not \(descriptor.digest)",
                remedy: "something changed it on its way; try again, and look at what is between here and the registry")
        }
    }
}
