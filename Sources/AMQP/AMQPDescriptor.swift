/// The numeric descriptors of the standard's composite types.

/// Descriptors of domain `amqp` (0x00000000).
public enum AMQPDescriptor {
    static let open: UInt64 = 0x10
    static let begin: UInt64 = 0x11
    static let attach: UInt64 = 0x12
    static let flow: UInt64 = 0x13
    static let transfer: UInt64 = 0x14
    static let disposition: UInt64 = 0x15
    static let detach: UInt64 = 0x16
    static let end: UInt64 = 0x17
    static let close: UInt64 = 0x18
    static let error: UInt64 = 0x1D
    static let received: UInt64 = 0x23
    static let accepted: UInt64 = 0x24
    static let rejected: UInt64 = 0x25
    static let released: UInt64 = 0x26
    static let modified: UInt64 = 0x27
    static let source: UInt64 = 0x28
    static let target: UInt64 = 0x29
    static let saslMechanisms: UInt64 = 0x40
    static let saslInit: UInt64 = 0x41
    static let saslChallenge: UInt64 = 0x42
    static let saslResponse: UInt64 = 0x43
    static let saslOutcome: UInt64 = 0x44
    public static let header: UInt64 = 0x70
    public static let deliveryAnnotations: UInt64 = 0x71
    public static let messageAnnotations: UInt64 = 0x72
    public static let properties: UInt64 = 0x73
    public static let applicationProperties: UInt64 = 0x74
    public static let data: UInt64 = 0x75
    public static let sequence: UInt64 = 0x76
    public static let value: UInt64 = 0x77
    public static let footer: UInt64 = 0x78

    private static let names: [String: UInt64] = [
        "amqp:open:list": open, "amqp:begin:list": begin, "amqp:attach:list": attach, "amqp:flow:list": flow,
        "amqp:transfer:list": transfer, "amqp:disposition:list": disposition, "amqp:detach:list": detach,
        "amqp:end:list": end, "amqp:close:list": close, "amqp:error:list": error, "amqp:received:list": received,
        "amqp:accepted:list": accepted, "amqp:rejected:list": rejected, "amqp:released:list": released,
        "amqp:modified:list": modified, "amqp:source:list": source, "amqp:target:list": target,
        "amqp:sasl-mechanisms:list": saslMechanisms, "amqp:sasl-init:list": saslInit,
        "amqp:sasl-outcome:list": saslOutcome, "amqp:header:list": header,
        "amqp:delivery-annotations:map": deliveryAnnotations, "amqp:message-annotations:map": messageAnnotations,
        "amqp:properties:list": properties, "amqp:application-properties:map": applicationProperties,
        "amqp:data:binary": data, "amqp:amqp-sequence:list": sequence, "amqp:amqp-value:*": value,
        "amqp:footer:map": footer,
    ]

    static func named(_ name: String) -> UInt64? { names[name] }
}
