/// Replies, parsed by hiredis.
internal import CHiredis

/// One reply of a Redis server (RESP2).
public enum RedisReply: Sendable, Equatable {
    case bytes([UInt8])
    case status(String)
    case integer(Int)
    case null
    case error(String)
    case array([RedisReply])
}

/// hiredis's reader: bytes in, replies out.
final class RedisReplyReader {
    private let reader: UnsafeMutablePointer<redisReader>

    /// Bytes a reply may have in all; a larger one ends the connection.
    static let replyByteLimit = 64 << 20
    private var fed = 0

    init?() {
        guard let reader = redisReaderCreate() else { return nil }
        self.reader = reader
    }

    deinit { redisReaderFree(reader) }

    /// Takes bytes and returns the replies they complete.
    ///
    /// - Throws: when they are not Redis protocol; the reader is of no further use.
    func feed(_ bytes: UnsafeRawBufferPointer) throws(RedisError) -> [RedisReply] {
        fed += bytes.count
        redisReaderFeed(reader, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
        var replies: [RedisReply] = []
        while true {
            var raw: UnsafeMutableRawPointer?
            guard redisReaderGetReply(reader, &raw) == REDIS_OK else {
                let text = withUnsafePointer(to: &reader.pointee.errstr) { pointer in
                    pointer.withMemoryRebound(to: CChar.self, capacity: 128) { String(cString: $0) }
                }
                throw .protocolBroken(text)
            }
            guard let raw else { break }
            fed = 0
            replies.append(Self.convert(raw.assumingMemoryBound(to: redisReply.self).pointee))
            freeReplyObject(raw)
        }
        guard fed <= Self.replyByteLimit else {
            throw .protocolBroken("a reply of more than \(Self.replyByteLimit) bytes")
        }
        return replies
    }

    private static func convert(_ reply: redisReply) -> RedisReply {
        let bytes = { Array(UnsafeRawBufferPointer(start: reply.str, count: Int(reply.len))) }
        switch reply.type {
        case REDIS_REPLY_STRING: return .bytes(bytes())
        case REDIS_REPLY_STATUS: return .status(String(decoding: bytes(), as: UTF8.self))
        case REDIS_REPLY_ERROR: return .error(String(decoding: bytes(), as: UTF8.self))
        case REDIS_REPLY_INTEGER: return .integer(Int(reply.integer))
        case REDIS_REPLY_ARRAY:
            return .array(
                (0..<Int(reply.elements)).map { index in
                    reply.element[index].map { convert($0.pointee) } ?? .null
                })
        default: return .null
        }
    }
}
