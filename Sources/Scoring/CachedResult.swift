/// What the inference cache keeps of one result, and its form in Redis.
internal import EventLoops
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

    init(_ response: ScoringResponse) {
        status = response.status
        contentType = response.contentType
        fields = response.fields.bytes
        body = response.body
        runNanoseconds = response.runNanoseconds
    }

    /// Bytes it takes in memory, roughly.
    var byteCount: Int { body.count + fields.count + 256 }

    var response: ScoringResponse {
        var fields = HTTPFields()
        fields.append(lines: self.fields)
        return ScoringResponse(
            status: status, contentType: contentType, fields: fields, body: body, runNanoseconds: runNanoseconds)
    }

    // The form in Redis, little-endian: "AIC1", 8 bytes of the SHA-256 of all that follows, u16 status, u64 nanoseconds,
    // u16 length of the content type, u32 length of the fields, content type, fields, body.
    private static let magic = Array("AIC1".utf8)
    private static let headLength = 12 + 16

    /// The bytes to store.
    var stored: [UInt8] {
        var rest: [UInt8] = []
        let type = Array((contentType ?? "").utf8)
        Self.append(UInt16(status), to: &rest)
        Self.append(runNanoseconds, to: &rest)
        Self.append(UInt16(type.count), to: &rest)
        Self.append(UInt32(fields.count), to: &rest)
        rest += type + fields + body
        return Self.magic + SHA256Digest(of: rest).bytes.prefix(8) + rest
    }

    /// Reads stored bytes; nil for anything that is not whole and unchanged: that is a miss.
    init?(stored: [UInt8]) {
        guard stored.count >= Self.headLength, stored.starts(with: Self.magic) else { return nil }
        let rest = Array(stored[12...])
        guard SHA256Digest(of: rest).bytes.prefix(8) == stored[4..<12] else { return nil }
        let (status, nanoseconds, typeLength, fieldsLength) = rest.withUnsafeBytes { bytes in
            (
                Int(bytes.loadUnaligned(as: UInt16.self)), bytes.loadUnaligned(fromByteOffset: 2, as: UInt64.self),
                Int(bytes.loadUnaligned(fromByteOffset: 10, as: UInt16.self)),
                Int(bytes.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
            )
        }
        let bodyStart = 16 + typeLength + fieldsLength
        guard bodyStart <= rest.count else { return nil }
        self.status = status
        runNanoseconds = nanoseconds
        contentType = typeLength == 0 ? nil : String(decoding: rest[16..<(16 + typeLength)], as: UTF8.self)
        fields = Array(rest[(16 + typeLength)..<bodyStart])
        body = Array(rest[bodyStart...])
    }

    private static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
}
