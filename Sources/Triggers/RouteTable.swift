/// All routes of an app; looking one up does not get slower with their number.
internal import FunctionApps
internal import HTTPMessages
internal import Invocations

/// One function's route.
struct Route {
    let function: Int
    let template: RouteTemplate
    /// Upper case; nil for every method.
    let methods: [String]?

    func accepts(_ head: RequestHead) -> Bool {
        guard let methods else { return true }
        // Comparing with the literal keeps the common methods free of string building.
        for method in methods {
            switch method {
            case "POST": if head.isMethod("POST") { return true }
            case "GET": if head.isMethod("GET") { return true }
            default: if method == head.method { return true }
            }
        }
        return false
    }
}

/// Routes in the order they are tried. Those without parameters are found by their whole path, the others by
/// the literal segments they begin with.
struct RouteTable {
    private final class Node {
        var children: [String: Node] = [:]
        /// Indexes of the routes whose literal beginning ends here.
        var routes: [Int] = []
    }

    /// A whole path in lower case, and the routes that are exactly it.
    private struct Literal {
        let hash: UInt64
        let path: [UInt8]
        var routes: [Int]
    }

    private var routes: [Route] = []
    private var literals: [Literal] = []
    /// An open hash table of indexes into ``literals``, at most half full; -1 is a free slot.
    private var slots: [Int]
    private let root = Node()

    init(_ routes: [Route]) {
        self.routes = routes
        slots = [Int](repeating: -1, count: 1 << (64 - (2 * routes.count).leadingZeroBitCount))
        for (index, route) in routes.enumerated() {
            let prefix = route.template.literalPrefix
            if prefix.count == route.template.segmentCount {
                add(literal: Array(prefix.joined(separator: "/").utf8), index)
            } else {
                var node = root
                for segment in prefix {
                    let child = node.children[segment] ?? Node()
                    node.children[segment] = child
                    node = child
                }
                node.routes.append(index)
            }
        }
    }

    /// The function of the first route, in order, that matches path and method.
    func match(_ head: RequestHead) -> (function: Int, parameters: [(name: String, value: String?)])? {
        let exact = literal(head.path).flatMap { literals[$0].routes.first { routes[$0].accepts(head) } }
        let otherwise = exact.map { (routes[$0].function, [(name: String, value: String?)]()) }
        if root.children.isEmpty, root.routes.isEmpty { return otherwise }
        guard let segments = decodedSegments(head.path) else { return otherwise }
        for index in candidates(segments) {
            if let exact, exact < index { break }
            guard routes[index].accepts(head), let values = routes[index].template.match(segments) else { continue }
            return (routes[index].function, values)
        }
        return otherwise
    }

    /// Routes whose literal beginning fits, in order.
    private func candidates(_ segments: [String]) -> [Int] {
        var found = root.routes
        var node = root
        for segment in segments {
            guard let next = node.children[segment.lowercased()] else { break }
            node = next
            found += node.routes
        }
        return found.sorted()
    }

    private mutating func add(literal path: [UInt8], _ index: Int) {
        let hash = Self.hash(path[...])
        let slot = self.slot(of: path[...], hash)
        if slots[slot] < 0 {
            slots[slot] = literals.count
            literals.append(Literal(hash: hash, path: path, routes: []))
        }
        literals[slots[slot]].routes.append(index)
    }

    /// Where a path is, or would be.
    private func slot(of path: ArraySlice<UInt8>, _ hash: UInt64) -> Int {
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] >= 0, !matches(literals[slots[slot]], path, hash) { slot = (slot + 1) & (slots.count - 1) }
        return slot
    }

    private func matches(_ literal: Literal, _ path: ArraySlice<UInt8>, _ hash: UInt64) -> Bool {
        guard literal.hash == hash, literal.path.count == path.count else { return false }
        var index = path.startIndex
        for byte in literal.path {
            if asciiLowercased(path[index]) != byte { return false }
            index += 1
        }
        return true
    }

    /// The entry that is exactly this path, without regard to case and a slash at the end.
    private func literal(_ path: ArraySlice<UInt8>) -> Int? {
        var slice = path.dropFirst()
        if slice.last == UInt8(ascii: "/") { slice = slice.dropLast() }
        if slice.contains(UInt8(ascii: "%")) {
            guard let decoded = decodedSegments(path) else { return nil }
            slice = Array(decoded.joined(separator: "/").utf8)[...]
        }
        let index = slots[slot(of: slice, Self.hash(slice))]
        return index < 0 ? nil : index
    }

    /// FNV-1a over the lower-case bytes.
    private static func hash(_ path: ArraySlice<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in path { hash = (hash ^ UInt64(asciiLowercased(byte))) &* 0x100_0000_01B3 }
        return hash
    }

    /// Decoded segments; nil for empty ones inside, broken escapes, and `.` or `..`.
    private func decodedSegments(_ path: ArraySlice<UInt8>) -> [String]? {
        var slice = path.dropFirst()
        if slice.last == UInt8(ascii: "/") { slice = slice.dropLast() }
        if slice.isEmpty { return [] }
        var segments: [String] = []
        for part in slice.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            guard let text = PercentCoding.decode(part), !text.isEmpty, text != ".", text != ".." else { return nil }
            segments.append(text)
        }
        return segments
    }
}
