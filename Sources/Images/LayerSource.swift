/// A layer's compressed bytes on the thread: from the file of an earlier try first, then from the queue; each
/// byte is hashed and counted, and kept for a later try while the network is what the layer waits for.
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
    /// Bytes that came and are not in the file yet, in order; nil when no more are kept.
    private var held: [[UInt8]]? = []
    private var heldByteCount = 0
    private var buffer = [UInt8](repeating: 0, count: 256 << 10)
    private(set) var byteCount = 0

    /// Bytes that may be held. They are written while the thread has nothing else to do; a layer that comes faster
    /// than it is unpacked is not kept from here on, as it is here again sooner than the copy costs.
    static let heldByteLimit = 8 << 20

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
        if queue.isEmpty { try writeHeld() }
        switch queue.next() {
        case .end: return false
        case .failed(let error):
            try writeHeld()
            throw error
        case .bytes(let chunk):
            guard byteCount + chunk.count <= descriptor.size else {
                throw ImageError(
                    .verification, image: image, step: step,
                    "more than the promised \(descriptor.size) bytes come", remedy: "the image was pushed wrong")
            }
            hold(chunk)
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

    private func hold(_ chunk: [UInt8]) {
        guard file >= 0, held != nil else { return }
        heldByteCount += chunk.count
        if heldByteCount > Self.heldByteLimit { held = nil } else { held?.append(chunk) }
    }

    private func writeHeld() throws(ImageError) {
        guard let chunks = held, !chunks.isEmpty else { return }
        held = []
        var place = byteCount - heldByteCount
        heldByteCount = 0
        for chunk in chunks {
            var offset = 0
            while offset < chunk.count {
                let count = chunk.withUnsafeBytes {
                    pwrite(file, $0.baseAddress?.advanced(by: offset), $0.count - offset, off_t(place + offset))
                }
                guard count > 0 else { throw disk("write") }
                offset += count
            }
            place += chunk.count
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
