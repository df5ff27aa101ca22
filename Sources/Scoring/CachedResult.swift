/// What the inference cache keeps of one result, and its form in Redis.
internal import EventLoops
internal import Glibc
internal import HTTPMessages
internal import Invocations

/// One result.
struct CachedResult {
    let status: Int
    let contentType: String?
    let fields: [UInt8]
    let body: [UInt8]
    /// What it cost to compute: what a hit saves.
    let runNanoseconds: UInt64
    /// When it was computed, in milliseconds of Unix time.
    let createdMilliseconds: UInt64
    /// How long after that it may be given without asking again.
    let freshMilliseconds: UInt64
    /// Set for a user's error that is kept for a while; such a result stays in memory.
    let failure: InvocationFailure?
    let runFunctionFailed: Bool

    init(
        _ response: ScoringResponse, createdMilliseconds: UInt64 = unixMilliseconds(), fresh: Duration = .seconds(3600)
    ) {
        status = response.status
        contentType = response.contentType
        fields = response.fields.bytes
        body = response.body
        runNanoseconds = response.runNanoseconds
        failure = response.failure
        runFunctionFailed = response.runFunctionFailed
        self.createdMilliseconds = createdMilliseconds
        freshMilliseconds = fresh.wholeMilliseconds
    }

    /// Bytes it takes in memory, roughly.
    var byteCount: Int { body.count + fields.count + 256 }

    var response: ScoringResponse {
        var fields = HTTPFields()
        fields.append(lines: self.fields)
        return ScoringResponse(
            status: status, contentType: contentType, fields: fields, body: body, runFunctionFailed: runFunctionFailed,
            runNanoseconds: runNanoseconds, failure: failure)
    }

    /// Milliseconds since it was computed; clocks that disagree do not make it younger than new.
    func ageMilliseconds(now: UInt64) -> UInt64 { now > createdMilliseconds ? now - createdMilliseconds : 0 }

    // The form in Redis, little-endian: "AIC2", 8 bytes of the SHA-256 of all that follows, u8 flags (1: the body is
    // compressed by Zstandard), u16 status, u64 nanoseconds, u64 created, u64 fresh, u16 length of the content type,
    // u32 length of the fields, u32 length of the body before compression, content type, fields, body.
    private static let magic = Array("AIC2".utf8)
    private static let checkedFrom = 12
    private static let headLength = checkedFrom + 37
    private static let compressedFlag: UInt8 = 1

    /// Bytes a stored result has at most beside fields and body.
    static let overhead = headLength + 512

    /// The bytes to store; a body from `compressAbove` bytes on is compressed when that helps.
    func stored(compressAbove: Int = .max) -> [UInt8] {
        let type = Array((contentType ?? "").utf8.prefix(400))
        let squeezed = body.count >= compressAbove ? Compression.compressed(body) : nil
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.headLength + type.count + fields.count + (squeezed ?? body).count)
        bytes += Self.magic
        bytes += [0, 0, 0, 0, 0, 0, 0, 0]
        bytes.append(squeezed == nil ? 0 : Self.compressedFlag)
        Self.append(UInt16(status), to: &bytes)
        Self.append(runNanoseconds, to: &bytes)
        Self.append(createdMilliseconds, to: &bytes)
        Self.append(freshMilliseconds, to: &bytes)
        Self.append(UInt16(type.count), to: &bytes)
        Self.append(UInt32(fields.count), to: &bytes)
        Self.append(UInt32(body.count), to: &bytes)
        bytes += type
        bytes += fields
        bytes += squeezed ?? body
        let sum = bytes.withUnsafeBytes {
            SHA256Digest(ofBytes: UnsafeRawBufferPointer(rebasing: $0[Self.checkedFrom...]))
        }
        bytes.replaceSubrange(4..<12, with: sum.bytes.prefix(8))
        return bytes
    }

    /// Reads stored bytes; nil for anything that is not whole and unchanged, or larger than `limit`: that is a miss.
    init?(stored: [UInt8], limit: Int = 1 << 30) {
        guard stored.count >= Self.headLength, stored.starts(with: Self.magic) else { return nil }
        let read = stored.withUnsafeBytes { bytes -> CachedResult? in
            let sum = SHA256Digest(ofBytes: UnsafeRawBufferPointer(rebasing: bytes[Self.checkedFrom...]))
            guard sum.bytes.prefix(8).elementsEqual(bytes[4..<12]) else { return nil }
            return CachedResult(checked: bytes, limit: limit)
        }
        guard let read else { return nil }
        self = read
    }

    private init?(checked bytes: UnsafeRawBufferPointer, limit: Int) {
        func number<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
            T(littleEndian: bytes.loadUnaligned(fromByteOffset: Self.checkedFrom + offset, as: T.self))
        }
        let flags = number(0, UInt8.self)
        status = Int(number(1, UInt16.self))
        runNanoseconds = number(3, UInt64.self)
        createdMilliseconds = number(11, UInt64.self)
        freshMilliseconds = number(19, UInt64.self)
        let typeEnd = Self.headLength + Int(number(27, UInt16.self))
        let fieldsEnd = typeEnd + Int(number(29, UInt32.self))
        let bodyLength = Int(number(33, UInt32.self))
        guard flags <= Self.compressedFlag, fieldsEnd <= bytes.count, bodyLength <= limit, (100...599).contains(status)
        else { return nil }
        contentType =
            typeEnd == Self.headLength ? nil : String(decoding: bytes[Self.headLength..<typeEnd], as: UTF8.self)
        fields = Array(bytes[typeEnd..<fieldsEnd])
        let rest = UnsafeRawBufferPointer(rebasing: bytes[fieldsEnd...])
        if flags & Self.compressedFlag != 0 {
            guard let body = Compression.decompressed(rest, count: bodyLength) else { return nil }
            self.body = body
        } else {
            guard rest.count == bodyLength else { return nil }
            body = Array(rest)
        }
        failure = nil
        runFunctionFailed = false
    }

    private static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
}

/// Milliseconds of Unix time, to the kernel's tick.
func unixMilliseconds() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME_COARSE, &now)
    return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec / 1_000_000)
}
