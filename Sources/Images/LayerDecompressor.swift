/// A layer's bytes without their compression: gzip, zstd, or none, told apart by their first bytes.
internal import CArchive
internal import EventLoops
internal import Glibc

/// Decompresses one layer piece by piece, hashes the result, and watches for bombs.
final class LayerDecompressor {
    private enum Format { case unknown, plain, gzip, zstd }

    private let source: LayerSource
    private let limits: UnpackLimits
    private let fail: (ImageError.Kind, String, String?) -> ImageError
    private var format = Format.unknown
    private var gzip: UnsafeMutablePointer<inflate_state>?
    private var zstd: OpaquePointer?
    private var input: [UInt8] = []
    private var inputPosition = 0
    private var sourceHasEnded = false
    private var memberHasEnded = false
    private var hasher = SHA256Hasher()
    /// Bytes that came out.
    private(set) var byteCount = 0

    /// zstd windows up to 2 to this power are followed, 32 MiB; larger ones are refused.
    private static let zstdWindowLog: Int32 = 25

    init(
        source: LayerSource, limits: UnpackLimits, fail: @escaping (ImageError.Kind, String, String?) -> ImageError
    ) {
        self.source = source
        self.limits = limits
        self.fail = fail
    }

    deinit {
        if let gzip { andiron_inflate_free(gzip) }
        if let zstd { ZSTD_freeDStream(zstd) }
    }

    var diffID: Digest { Digest(hasher) }

    /// Fills `buffer` with what comes next.
    ///
    /// - Returns: the number of bytes, 0 at the end.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws(ImageError) -> Int {
        while true {
            if inputPosition == input.count, !sourceHasEnded { try refill() }
            if format == .unknown { try detect() }
            let count = try produce(buffer)
            if count > 0 {
                byteCount += count
                hasher.update(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count]))
                try checkBomb()
                return count
            }
            if sourceHasEnded, inputPosition == input.count {
                guard format == .plain || memberHasEnded else {
                    throw fail(.verification, "the compressed data ends in the middle", "the image was pushed wrong")
                }
                return 0
            }
        }
    }

    private func refill() throws(ImageError) {
        input.removeAll(keepingCapacity: true)
        inputPosition = 0
        let hasMore = try source.next { self.input.append(contentsOf: $0) }
        if !hasMore { sourceHasEnded = true }
    }

    private func detect() throws(ImageError) {
        while input.count < 4, !sourceHasEnded {
            let hasMore = try source.next { self.input.append(contentsOf: $0) }
            if !hasMore { sourceHasEnded = true }
        }
        if input.starts(with: [0x1F, 0x8B]) {
            gzip = andiron_inflate_new()
            guard gzip != nil else { throw fail(.store, "there is no memory to decompress", nil) }
            format = .gzip
        } else if input.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) {
            zstd = ZSTD_createDStream()
            ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, Self.zstdWindowLog)
            format = .zstd
        } else {
            format = .plain
        }
    }

    private func produce(_ buffer: UnsafeMutableRawBufferPointer) throws(ImageError) -> Int {
        switch format {
        case .unknown: return 0
        case .plain:
            let count = min(buffer.count, input.count - inputPosition)
            input.withUnsafeBytes { memory in
                buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[inputPosition..<inputPosition + count]))
            }
            inputPosition += count
            return count
        case .gzip: return try inflateGzip(buffer)
        case .zstd: return try inflateZstd(buffer)
        }
    }

    private func inflateGzip(_ buffer: UnsafeMutableRawBufferPointer) throws(ImageError) -> Int {
        if memberHasEnded {
            // Members may follow each other, and zeros may follow the last one.
            while inputPosition < input.count, input[inputPosition] == 0 { inputPosition += 1 }
            if inputPosition == input.count { return 0 }
            andiron_inflate_again(gzip)
            memberHasEnded = false
        }
        var taken: UInt32 = 0
        var made: UInt32 = 0
        let result = input.withUnsafeBytes { memory in
            andiron_inflate(
                gzip, memory.baseAddress?.advanced(by: inputPosition).assumingMemoryBound(to: UInt8.self),
                UInt32(memory.count - inputPosition), buffer.baseAddress?.assumingMemoryBound(to: UInt8.self),
                UInt32(buffer.count), &taken, &made)
        }
        inputPosition += Int(taken)
        guard result >= 0 else {
            throw fail(.verification, "the gzip data is damaged", "the image was pushed wrong, or changed on its way")
        }
        if result == 1 { memberHasEnded = true }
        return Int(made)
    }

    private func inflateZstd(_ buffer: UnsafeMutableRawBufferPointer) throws(ImageError) -> Int {
        var produced = 0
        var result = 0
        let hadInput = inputPosition < input.count
        input.withUnsafeBytes { memory in
            var source = ZSTD_inBuffer(src: memory.baseAddress, size: memory.count, pos: inputPosition)
            var target = ZSTD_outBuffer(dst: buffer.baseAddress, size: buffer.count, pos: 0)
            result = ZSTD_decompressStream(zstd, &target, &source)
            inputPosition = source.pos
            produced = target.pos
        }
        if ZSTD_isError(result) != 0 {
            let words = String(cString: ZSTD_getErrorName(result))
            throw fail(
                .verification, "the zstd data cannot be read: \(words)",
                "the image was pushed wrong, or changed on its way")
        }
        if hadInput || produced > 0 { memberHasEnded = result == 0 }
        return produced
    }

    private func checkBomb() throws(ImageError) {
        if byteCount > limits.totalByteCount {
            throw fail(.limit, "unpacks to more than \(limits.totalByteCount) bytes", nil)
        }
        if byteCount > limits.ratioFreeByteCount, byteCount / max(1, source.byteCount) > limits.ratio {
            throw fail(
                .limit, "unpacks to more than \(limits.ratio) times its size, as a bomb does", "is this image yours?")
        }
    }

    /// Reads to the end without looking.
    func drain() throws(ImageError) {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let result = buffer.withUnsafeMutableBytes { memory -> Result<Int, ImageError> in
                do throws(ImageError) { return .success(try read(into: memory)) } catch { return .failure(error) }
            }
            if try result.get() == 0 { return }
        }
    }
}
