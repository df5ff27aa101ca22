/// Addresses as clients write them: with or without a scheme and host, in any case, with sub-queues and nodes.

/// What an address names.
public struct EntityPath: Equatable, Sendable {
    /// What is behind the entity's name.
    public enum Node: Equatable, Sendable {
        case entity
        /// `$cbs`: tokens.
        case claims
        /// `…/$management`: requests about the entity.
        case management
    }

    /// The entity, sub-queue included, without the node.
    public let entity: String
    public let node: Node

    /// Reads an address such as `amqps://localhost/queue.1`, `queue.1/$management` or `$cbs`.
    public init(_ address: String) {
        var rest = address[...]
        if let scheme = rest.range(of: "://") {
            rest = rest[scheme.upperBound...]
            rest = rest.firstIndex(of: "/").map { rest[rest.index(after: $0)...] } ?? ""
        }
        while rest.hasPrefix("/") { rest = rest.dropFirst() }
        while rest.hasSuffix("/") { rest = rest.dropLast() }
        let lower = rest.lowercased()
        if lower == "$cbs" {
            entity = ""
            node = .claims
        } else if lower.hasSuffix("/$management") {
            entity = String(rest.dropLast("/$management".count))
            node = .management
        } else {
            entity = String(rest)
            node = lower == "$management" ? .management : .entity
        }
    }
}

extension Substring {
    fileprivate func range(of text: String) -> Range<Index>? {
        guard let found = firstRange(of: text) else { return nil }
        return found
    }
}
