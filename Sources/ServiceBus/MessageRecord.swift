/// A message as the log and the memory keep it: one array with a fixed head, small texts, and the sender's bytes.
internal import AMQP

/// Where a message stands; the numbers are those of `x-opt-message-state`.
public enum MessageState: UInt8, Sendable {
    case active = 0
    case deferred = 1
    case scheduled = 2
}

/// The kinds of records in the log. Unknown kinds are skipped, so that a newer version may add some.
enum RecordKind {
    static let message: UInt8 = 1
    static let state: UInt8 = 2
    static let removal: UInt8 = 3
    static let definition: UInt8 = 4
    static let deletion: UInt8 = 5
    static let sessionState: UInt8 = 6
    static let duplicateID: UInt8 = 7
    static let rule: UInt8 = 8
}

/// Accessors over the bytes of a message record.
///
///     0 kind  1 flags  2 state  3 priority  4 queue u32  8 sequence u64  16 enqueued i64  24 expires i64
///     32 scheduled i64  40 enqueued sequence u64  48 ttl u32  52 delivery count u16  54 annotation pairs u16
///     56 annotation bytes u32  60 message id u16  62 session id u16  64 dead-letter source u16  66 head length u16
///     then the message id, the session id, the dead-letter source, the annotations' pairs, the bare message
public struct MessageRecord: Sendable {
    public internal(set) var bytes: [UInt8]

    static let headLength = 68
    static let noTimeToLive = UInt32.max

    init(bytes: [UInt8]) { self.bytes = bytes }

    /// What a sender's message says that the broker acts on.
    struct Parts {
        var isDurable = false
        var priority: UInt8 = 4
        var timeToLive = MessageRecord.noTimeToLive
        var messageID: [UInt8] = []
        var sessionID: [UInt8] = []
        var deadLetterSource: [UInt8] = []
        var annotationCount = 0
        var annotations: UnsafeRawBufferPointer?
        var scheduledFor: Int64 = 0
    }

    init(_ parts: Parts, bare: UnsafeRawBufferPointer) {
        let annotationBytes = parts.annotations?.count ?? 0
        let size =
            Self.headLength + parts.messageID.count + parts.sessionID.count + parts.deadLetterSource.count
            + annotationBytes + bare.count
        bytes = [UInt8](unsafeUninitializedCapacity: size) { memory, count in
            let memory = UnsafeMutableRawBufferPointer(memory)
            memory.baseAddress?.initializeMemory(as: UInt8.self, repeating: 0, count: Self.headLength)
            memory[0] = RecordKind.message
            memory[1] = parts.isDurable ? 1 : 0
            memory[3] = parts.priority
            memory.storeBytes(of: parts.timeToLive.littleEndian, toByteOffset: 48, as: UInt32.self)
            memory.storeBytes(of: UInt16(parts.annotationCount).littleEndian, toByteOffset: 54, as: UInt16.self)
            memory.storeBytes(of: UInt32(annotationBytes).littleEndian, toByteOffset: 56, as: UInt32.self)
            memory.storeBytes(of: UInt16(parts.messageID.count).littleEndian, toByteOffset: 60, as: UInt16.self)
            memory.storeBytes(of: UInt16(parts.sessionID.count).littleEndian, toByteOffset: 62, as: UInt16.self)
            memory.storeBytes(of: UInt16(parts.deadLetterSource.count).littleEndian, toByteOffset: 64, as: UInt16.self)
            memory.storeBytes(of: UInt16(Self.headLength).littleEndian, toByteOffset: 66, as: UInt16.self)
            count = Self.headLength
            func append(_ part: UnsafeRawBufferPointer) {
                guard !part.isEmpty else { return }
                UnsafeMutableRawBufferPointer(rebasing: memory[count...]).copyMemory(from: part)
                count += part.count
            }
            parts.messageID.withUnsafeBytes(append)
            parts.sessionID.withUnsafeBytes(append)
            parts.deadLetterSource.withUnsafeBytes(append)
            if let annotations = parts.annotations { append(annotations) }
            append(bare)
        }
        scheduledFor = parts.scheduledFor
    }

    @inline(__always)
    private func load<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
        bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
    }

    @inline(__always)
    private mutating func store<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
        bytes.withUnsafeMutableBytes { $0.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self) }
    }

    var isDurable: Bool { bytes[1] & 1 != 0 }
    var state: MessageState {
        get { MessageState(rawValue: bytes[2]) ?? .active }
        set { bytes[2] = newValue.rawValue }
    }
    var priority: UInt8 { bytes[3] }
    var queue: UInt32 {
        get { load(4, UInt32.self) }
        set { store(newValue, 4) }
    }
    public internal(set) var sequence: UInt64 {
        get { load(8, UInt64.self) }
        set { store(newValue, 8) }
    }
    public internal(set) var enqueuedAt: Int64 {
        get { load(16, Int64.self) }
        set { store(newValue, 16) }
    }
    public internal(set) var expiresAt: Int64 {
        get { load(24, Int64.self) }
        set { store(newValue, 24) }
    }
    public internal(set) var scheduledFor: Int64 {
        get { load(32, Int64.self) }
        set { store(newValue, 32) }
    }
    var enqueuedSequence: UInt64 {
        get { load(40, UInt64.self) }
        set { store(newValue, 40) }
    }
    var timeToLive: UInt32 { load(48, UInt32.self) }
    var deliveryCount: UInt16 {
        get { load(52, UInt16.self) }
        set { store(newValue, 52) }
    }
    private var annotationCount: Int { Int(load(54, UInt16.self)) }
    private var annotationByteCount: Int { Int(load(56, UInt32.self)) }
    private var head: Int { Int(load(66, UInt16.self)) }

    private var texts: (messageID: Range<Int>, sessionID: Range<Int>, source: Range<Int>) {
        let first = head
        let second = first + Int(load(60, UInt16.self))
        let third = second + Int(load(62, UInt16.self))
        return (first..<second, second..<third, third..<third + Int(load(64, UInt16.self)))
    }
    private var annotations: Range<Int> {
        let start = texts.source.upperBound
        return start..<start + annotationByteCount
    }
    /// Where the bare message begins.
    private var bareStart: Int { annotations.upperBound }

    /// Whether the lengths inside fit the bytes: asked once for what comes from a file.
    var isWhole: Bool { bytes.count >= Self.headLength && head >= Self.headLength && bareStart <= bytes.count }

    var messageID: String { String(decoding: bytes[texts.messageID], as: UTF8.self) }
    var sessionID: String { String(decoding: bytes[texts.sessionID], as: UTF8.self) }
    var hasSession: Bool { !texts.sessionID.isEmpty }
    var deadLetterSource: String { String(decoding: bytes[texts.source], as: UTF8.self) }

    // MARK: To the receiver

    /// What a delivery adds to the message.
    struct Delivery {
        var deliveryCount: UInt32 = 0
        var lockToken: AMQPUUID?
        var lockedUntil: Int64?
        var isFirst = true
        var state = MessageState.active
    }

    /// Appends the message as a receiver gets it: header, annotations, and the sender's bytes unchanged.
    func write(_ delivery: Delivery, to writer: inout AMQPWriter) {
        let source = texts.source
        let start = writer.bytes.count
        // Where the size of the message annotations stands, from `start`.
        var size = 0
        writer.append(upTo: 256) { cursor in
            writeHeader(delivery, &cursor)
            if let token = delivery.lockToken {
                cursor.described(AMQPDescriptor.deliveryAnnotations)
                let map = cursor.begin(0xC1, count: 2)
                cursor.symbol("x-opt-lock-token")
                cursor.uuid(token)
                cursor.end(map)
            }
            cursor.described(AMQPDescriptor.messageAnnotations)
            cursor.octet(0xD1)
            size = cursor.count
            cursor.number(UInt32(0))
            let pairs =
                annotationCount + 3 + (delivery.lockedUntil == nil ? 0 : 1) + (source.isEmpty ? 0 : 1)
                + (enqueuedSequence == 0 ? 0 : 1)
            cursor.number(UInt32(pairs * 2))
            cursor.symbol("x-opt-enqueued-time")
            cursor.timestamp(enqueuedAt)
            cursor.symbol("x-opt-sequence-number")
            cursor.long(Int64(bitPattern: sequence))
            cursor.symbol("x-opt-message-state")
            cursor.octet(0x71)
            cursor.number(Int32(delivery.state.rawValue))
            if let until = delivery.lockedUntil {
                cursor.symbol("x-opt-locked-until")
                cursor.timestamp(until)
            }
            if enqueuedSequence != 0 {
                cursor.symbol("x-opt-enqueue-sequence-number")
                cursor.long(Int64(bitPattern: enqueuedSequence))
            }
        }
        if !source.isEmpty {
            writer.symbol("x-opt-deadletter-source")
            writer.string(deadLetterSource)
        }
        bytes.withUnsafeBytes { memory in
            let annotations = annotations
            if !annotations.isEmpty { writer.bytes.append(contentsOf: memory[annotations]) }
            writer.overwrite(writer.bytes.count - start - size - 4, at: start + size)
            writer.bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: memory[bareStart...]))
        }
    }

    @inline(__always)
    private func writeHeader(_ delivery: Delivery, _ cursor: inout AMQPCursor) {
        cursor.described(AMQPDescriptor.header)
        let list = cursor.begin(0xC0, count: 5)
        cursor.bool(isDurable)
        cursor.ubyte(priority)
        if timeToLive == Self.noTimeToLive { cursor.null() } else { cursor.uint(timeToLive) }
        cursor.bool(delivery.isFirst)
        cursor.uint(delivery.deliveryCount)
        cursor.end(list)
    }

    // MARK: Changed

    /// The same message without some application properties.
    func removing(_ names: [String]) -> MessageRecord { changed(adding: [], removing: names, source: nil) }

    /// The same message with application properties added or replaced, and perhaps a dead-letter source.
    func adding(_ properties: [AMQPPair], deadLetterSource source: String? = nil) -> MessageRecord {
        changed(adding: properties, removing: [], source: source)
    }

    private func changed(adding properties: [AMQPPair], removing names: [String], source: String?) -> MessageRecord {
        guard !properties.isEmpty || !names.isEmpty else {
            return rebuilt(bare: Array(bytes[bareStart...]), source: source)
        }
        var pairs = applicationProperties
        pairs.removeAll { pair in names.contains { $0 == pair.key.text } }
        for property in properties {
            pairs.removeAll { $0.key.text == property.key.text }
            pairs.append(property)
        }
        return rebuilt(bare: bare(properties: nil, applicationProperties: pairs), source: source)
    }

    private var applicationProperties: [AMQPPair] {
        bytes[bareStart...].withUnsafeBytes { memory in
            guard let range = (try? MessageSections(memory))?.applicationProperties else { return [] }
            var reader = AMQPReader(UnsafeRawBufferPointer(rebasing: memory[range]))
            _ = try? reader.descriptor()
            return (try? reader.value())?.pairs ?? []
        }
    }

    /// The bare message with other application properties, and perhaps other properties; its body as it was.
    private func bare(properties: AMQPMessage.Properties?, applicationProperties pairs: [AMQPPair]) -> [UInt8] {
        bytes[bareStart...].withUnsafeBytes { memory in
            guard let sections = try? MessageSections(memory) else { return Array(memory) }
            var writer = AMQPWriter()
            if let properties {
                properties.write(to: &writer)
            } else if let range = sections.properties {
                writer.bytes.append(contentsOf: memory[range])
            }
            if !pairs.isEmpty || sections.applicationProperties != nil {
                writer.section(AMQPDescriptor.applicationProperties)
                writer.map(pairs)
            }
            writer.bytes.append(contentsOf: memory[sections.body])
            if let range = sections.footer { writer.bytes.append(contentsOf: memory[range]) }
            return writer.bytes
        }
    }

    /// The same message with other application properties, and other properties when some are given.
    func replacing(
        properties: AMQPMessage.Properties?, applicationProperties pairs: [AMQPPair]
    ) -> MessageRecord {
        rebuilt(
            bare: bare(properties: properties, applicationProperties: pairs), source: nil,
            messageID: properties.map { $0.messageID.text ?? $0.messageID.identifierText },
            sessionID: properties.map { $0.groupID ?? "" })
    }

    private func rebuilt(
        bare changed: [UInt8], source: String?, messageID: String? = nil, sessionID: String? = nil
    ) -> MessageRecord {
        let texts = texts
        var parts = Parts(isDurable: isDurable, priority: priority, timeToLive: timeToLive)
        parts.messageID = messageID.map { Array($0.utf8) } ?? Array(bytes[texts.messageID])
        parts.sessionID = sessionID.map { Array($0.utf8) } ?? Array(bytes[texts.sessionID])
        parts.deadLetterSource = source.map { Array($0.utf8) } ?? Array(bytes[texts.source])
        parts.annotationCount = annotationCount
        parts.scheduledFor = scheduledFor
        let annotations = Array(bytes[annotations])
        var record = annotations.withUnsafeBytes { annotations in
            changed.withUnsafeBytes { bare in
                parts.annotations = annotations
                return MessageRecord(parts, bare: bare)
            }
        }
        record.bytes.withUnsafeMutableBytes { target in
            bytes.withUnsafeBytes { source in
                // From the queue's number to the enqueued sequence number.
                for offset in 4..<48 { target[offset] = source[offset] }
                target[2] = source[2]
            }
        }
        record.deliveryCount = deliveryCount
        return record
    }
}

extension AMQPWriter {
    /// The start of a message section; its value follows.
    mutating func section(_ descriptor: UInt64) { bytes.append(contentsOf: [0x00, 0x53, UInt8(descriptor)]) }
}

/// The small records of the log.
enum SmallRecord {
    /// A message's new state.
    static func state(
        queue: UInt32, sequence: UInt64, _ state: MessageState, deliveryCount: UInt16
    ) -> [UInt8] {
        var bytes = removal(queue: queue, sequence: sequence)
        bytes[0] = RecordKind.state
        bytes[2] = state.rawValue
        withUnsafeBytes(of: UInt32(deliveryCount).littleEndian) { bytes.append(contentsOf: $0) }
        return bytes
    }

    /// A message that is gone.
    @inline(__always)
    static func removal(queue: UInt32, sequence: UInt64) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 20) { memory, count in
            let memory = UnsafeMutableRawBufferPointer(memory)
            memory.storeBytes(of: UInt32(RecordKind.removal).littleEndian, as: UInt32.self)
            memory.storeBytes(of: queue.littleEndian, toByteOffset: 4, as: UInt32.self)
            memory.storeBytes(of: sequence.littleEndian, toByteOffset: 8, as: UInt64.self)
            count = 16
        }
    }

    /// A queue (or its end), a session's state, a remembered message id: a name and bytes.
    static func named(
        _ kind: UInt8, queue: UInt32, number: UInt64, name: String, _ rest: [UInt8] = []
    ) -> [UInt8] {
        var bytes = removal(queue: queue, sequence: number)
        bytes[0] = kind
        withUnsafeBytes(of: UInt32(name.utf8.count).littleEndian) { bytes.append(contentsOf: $0) }
        bytes.append(contentsOf: name.utf8)
        bytes.append(contentsOf: rest)
        return bytes
    }

    /// What ``named(_:queue:number:name:_:)`` wrote; nil for bytes that are none.
    static func read(_ bytes: UnsafeRawBufferPointer) -> (queue: UInt32, number: UInt64, name: String, rest: [UInt8])? {
        guard bytes.count >= 20 else { return nil }
        let queue = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        let number = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        let length = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self)))
        guard length <= bytes.count - 20 else { return nil }
        return (queue, number, String(decoding: bytes[20..<20 + length], as: UTF8.self), Array(bytes[(20 + length)...]))
    }
}
