/// SHA-256 by libcrypto.
internal import COpenSSL
internal import Glibc

/// A SHA-256 digest: 32 bytes, usable as a key.
public struct SHA256Digest: Hashable, Sendable, CustomStringConvertible {
    private let words: (UInt64, UInt64, UInt64, UInt64)

    /// The digest of the given parts one after another.
    ///
    /// Parts are not delimited: callers put lengths in where a boundary carries meaning.
    public init(of parts: [UInt8]...) {
        var context = SHA256_CTX()
        SHA256_Init(&context)
        for part in parts { _ = part.withUnsafeBytes { SHA256_Update(&context, $0.baseAddress, $0.count) } }
        var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        withUnsafeMutableBytes(of: &words) {
            _ = SHA256_Final($0.baseAddress?.assumingMemoryBound(to: UInt8.self), &context)
        }
        self.words = words
    }

    /// The digest of borrowed bytes.
    public init(ofBytes bytes: UnsafeRawBufferPointer) {
        var context = SHA256_CTX()
        SHA256_Init(&context)
        SHA256_Update(&context, bytes.baseAddress, bytes.count)
        var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        withUnsafeMutableBytes(of: &words) {
            _ = SHA256_Final($0.baseAddress?.assumingMemoryBound(to: UInt8.self), &context)
        }
        self.words = words
    }

    /// Appends 64 lower-case hexadecimal digits.
    public func appendHexadecimal(to bytes: inout [UInt8]) {
        withUnsafeBytes(of: words) { words in
            for byte in words {
                bytes.append(Self.digits[Int(byte >> 4)])
                bytes.append(Self.digits[Int(byte & 15)])
            }
        }
    }

    private static let digits = Array("0123456789abcdef".utf8)

    /// The 32 bytes.
    public var bytes: [UInt8] { withUnsafeBytes(of: words) { Array($0) } }

    /// 64 lower-case hexadecimal digits.
    public var description: String {
        var bytes: [UInt8] = []
        appendHexadecimal(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    public static func == (left: Self, right: Self) -> Bool { left.words == right.words }

    public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
}

/// Whether two secrets are equal, in time that depends only on their lengths.
public func constantTimeEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    guard left.count == right.count else { return false }
    return left.withUnsafeBytes { l in
        right.withUnsafeBytes { r in CRYPTO_memcmp(l.baseAddress, r.baseAddress, l.count) }
    } == 0
}

extension SHA256Digest {
    /// The digest of a file's contents, read in pieces; nil when it cannot be read. Blocking.
    public init?(ofFile path: String) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var context = SHA256_CTX()
        SHA256_Init(&context)
        var chunk = [UInt8](repeating: 0, count: 1 << 18)
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            guard count >= 0 else { return nil }
            if count == 0 { break }
            SHA256_Update(&context, &chunk, count)
        }
        var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        withUnsafeMutableBytes(of: &words) {
            _ = SHA256_Final($0.baseAddress?.assumingMemoryBound(to: UInt8.self), &context)
        }
        self.words = words
    }
}

/// SHA-256 of what comes piece by piece.
public struct SHA256Hasher {
    private var context = SHA256_CTX()

    public init() { SHA256_Init(&context) }

    /// Takes the next bytes.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        SHA256_Update(&context, bytes.baseAddress, bytes.count)
    }

    /// The digest of all bytes so far, in 64 lower-case hexadecimal digits.
    public func hexadecimal() -> String {
        var copy = context
        var bytes = [UInt8](repeating: 0, count: 32)
        SHA256_Final(&bytes, &copy)
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}

/// HMAC with SHA-256.
public enum HMACSHA256 {
    /// The 32-byte code of a message.
    public static func code(key: [UInt8], message: [UInt8]) -> [UInt8] {
        var code = [UInt8](repeating: 0, count: 32)
        var count: UInt32 = 32
        HMAC(EVP_sha256(), key, Int32(key.count), message, message.count, &code, &count)
        return code
    }
}
