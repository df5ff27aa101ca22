/// Input from Redis: a request names keys, the model gets what is stored under them.
internal import Diagnostics
public import EventLoops
public import Invocations
internal import JSONText
public import RedisClients

/// Fetches the features of one function. All keys of a request are one round trip.
@EventLoop
public final class FeatureInput {
    /// The rewritten body; nil leaves it as it is.
    public typealias Completion = @EventLoop (Result<[UInt8]?, InvocationFailure>) -> Void

    private let source: FeatureSource
    private let redis: RedisClient?

    /// Keys of one request.
    public static let keyLimit = 1000
    /// Bytes of one value.
    public static let valueByteLimit = 1 << 20

    /// - Parameter redis: nil when the app names none; then every request that needs it fails with what to set.
    public init(source: FeatureSource, redis: RedisClient?) {
        self.source = source
        self.redis = redis
        redis?.connectIfNeeded()
    }

    /// Fetches what the body's keys name and puts it in their place.
    func fetch(_ body: [UInt8], _ done: @escaping Completion) {
        guard let request = try? JSONParser.parse(body), let members = request.members else {
            return done(giveUp(400, "AN6009", "the request is no JSON object with '\(source.member)'"))
        }
        guard let named = request[source.member] else {
            return done(giveUp(400, "AN6009", "the request has no '\(source.member)'"))
        }
        let isList = named.elements != nil
        let keys = (named.elements ?? [named]).map(Self.text)
        guard !keys.contains(nil), !keys.isEmpty, keys.count <= Self.keyLimit else {
            return done(
                .failure(
                    InvocationFailure(
                        code: "AN6009", fault: .user,
                        message: "'\(source.member)' is not a key or a list of 1 to \(Self.keyLimit) keys",
                        remedy: "\"\(source.member)\": \"user:42\"", status: 400)))
        }
        guard let redis else {
            return done(giveUp(503, "AN6010", "the app has no RedisConnectionString", "set RedisConnectionString"))
        }
        ask(redis, keys.compactMap { $0 }) { [self] answers in
            done(rewrite(members, keys.compactMap { $0 }, answers, isList: isList))
        }
    }

    private static func text(_ value: JSONValue) -> String? {
        switch value.content {
        case .string(let text): text.isEmpty ? nil : text
        case .number(let digits): digits
        default: nil
        }
    }

    /// Sends all commands in one turn, which makes them one write.
    private func ask(
        _ redis: RedisClient, _ keys: [String], _ done: @escaping @EventLoop ([Result<RedisReply, RedisError>]) -> Void
    ) {
        var answers = [Result<RedisReply, RedisError>](repeating: .success(.null), count: keys.count)
        var left = keys.count
        for (index, key) in keys.enumerated() {
            let name = Array((source.prefix + key).utf8)
            redis.send(command(name), key: name, limit: source.timeout) { answer in
                answers[index] = answer
                left -= 1
                if left == 0 { done(answers) }
            }
        }
    }

    private func command(_ name: [UInt8]) -> [[UInt8]] {
        let text = { (words: [String]) in words.map { Array($0.utf8) } }
        switch (source.format, source.fields) {
        case (.hash, let fields?): return [Array("HMGET".utf8), name] + text(fields)
        case (.hash, nil): return [Array("HGETALL".utf8), name]
        // By range, so that a value past the limit is not sent whole.
        default: return [Array("GETRANGE".utf8), name] + text(["0", "\(Self.valueByteLimit)"])
        }
    }

    private func rewrite(
        _ members: [JSONValue.Member], _ keys: [String], _ answers: [Result<RedisReply, RedisError>], isList: Bool
    ) -> Result<[UInt8]?, InvocationFailure> {
        var values: [[UInt8]] = []
        var missing: [String] = []
        for (key, answer) in zip(keys, answers) {
            switch answer {
            case .failure(.server(let text)):
                return .failure(wrong(key, "Redis answered: \(text)"))
            case .failure(let error):
                return giveUp(503, "AN6010", error.message, error.remedy)
            case .success(let reply):
                do throws(InvocationFailure) {
                    if let value = try features(reply, key) { values.append(value) } else { missing.append(key) }
                } catch {
                    return .failure(error)
                }
            }
        }
        if !missing.isEmpty {
            let names = missing.prefix(10).map { "'\(source.prefix)\($0)'" }.joined(separator: ", ")
            return giveUp(404, "AN6011", "Redis has no features under \(names)", "store them, or correct the key")
        }
        var writer = JSONWriter()
        writer.beginObject()
        for member in members where member.name != source.member && member.name != source.input {
            writer.name(member.name)
            writer.value(member.value)
        }
        writer.name(source.input)
        let asList = isList || source.isBatch
        if asList { writer.beginArray() }
        for value in values { writer.raw(value) }
        if asList { writer.endArray() }
        writer.endObject()
        return .success(writer.bytes)
    }

    /// The JSON of one key's features; nil when there are none.
    private func features(_ reply: RedisReply, _ key: String) throws(InvocationFailure) -> [UInt8]? {
        switch (source.format, reply) {
        case (.hash, .array(let parts)):
            if let fields = source.fields { return try array(fields, parts, key) }
            return parts.isEmpty ? nil : object(parts)
        case (_, .bytes(let bytes)):
            if bytes.isEmpty { return nil }
            guard bytes.count <= Self.valueByteLimit else {
                throw wrong(key, "it has more than \(Self.valueByteLimit) bytes")
            }
            if source.format == .float32 { return try floats(bytes, key) }
            guard (try? JSONParser.parse(bytes)) != nil else { throw wrong(key, "it is not JSON") }
            return bytes
        default: return nil
        }
    }

    /// The named fields of a hash as numbers, in their order.
    private func array(_ fields: [String], _ parts: [RedisReply], _ key: String) throws(InvocationFailure) -> [UInt8]? {
        if parts.allSatisfy({ $0 == .null }) { return nil }
        var writer = JSONWriter()
        writer.beginArray()
        for (field, part) in zip(fields, parts) {
            guard case .bytes(let bytes) = part else { throw wrong(key, "it has no field '\(field)'") }
            guard let number = Self.number(bytes) else {
                throw wrong(
                    key, "its field '\(field)' is '\(String(decoding: bytes.prefix(40), as: UTF8.self))', no number")
            }
            writer.raw(number)
        }
        writer.endArray()
        return writer.bytes
    }

    /// All fields of a hash; what reads as a JSON number is one.
    private func object(_ parts: [RedisReply]) -> [UInt8] {
        jsonObject { writer in
            for index in stride(from: 0, to: parts.count - 1, by: 2) {
                guard case .bytes(let name) = parts[index], case .bytes(let bytes) = parts[index + 1] else { continue }
                writer.name(String(decoding: name, as: UTF8.self))
                if let number = Self.number(bytes) {
                    writer.raw(number)
                } else {
                    writer.string(String(decoding: bytes, as: UTF8.self))
                }
            }
        }
    }

    private static func number(_ bytes: [UInt8]) -> [UInt8]? {
        guard let value = try? JSONParser.parse(bytes), case .number(let digits) = value.content else { return nil }
        return Array(digits.utf8)
    }

    private func floats(_ bytes: [UInt8], _ key: String) throws(InvocationFailure) -> [UInt8] {
        guard bytes.count % 4 == 0 else {
            throw wrong(key, "\(bytes.count) bytes are no whole number of 32-bit floats")
        }
        var writer = JSONWriter()
        writer.beginArray()
        for offset in stride(from: 0, to: bytes.count, by: 4) {
            let pattern = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[offset + $1]) << (8 * UInt32($1)) }
            let value = Float(bitPattern: pattern)
            guard value.isFinite else { throw wrong(key, "number \(offset / 4) is not finite") }
            writer.raw("\(value)")
        }
        writer.endArray()
        return writer.bytes
    }

    private func wrong(_ key: String, _ reason: String) -> InvocationFailure {
        InvocationFailure(
            code: "AN6012", fault: .user,
            message: "the features under '\(source.prefix)\(key)' cannot be used: \(reason)",
            remedy: "store \(source.format.rawValue), or change 'features.format' in function.json", status: 422)
    }

    /// Without features: an error, or the body as it is, as configured.
    private func giveUp(
        _ status: Int, _ code: String, _ message: String, _ remedy: String? = nil
    ) -> Result<[UInt8]?, InvocationFailure> {
        if source.missing == .body { return .success(nil) }
        return .failure(
            InvocationFailure(
                code: code, fault: status < 500 ? .user : .service, message: message, remedy: remedy, status: status,
                retryAfterSeconds: status == 503 ? 1 : nil))
    }
}
