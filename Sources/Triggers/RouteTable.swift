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

    private var routes: [Route] = []
    private var literals: [String: [Int]] = [:]
    private let root = Node()

    init(_ routes: [Route]) {
        self.routes = routes
        for (index, route) in routes.enumerated() {
            let prefix = route.template.literalPrefix
            if prefix.count == route.template.segmentCount {
                literals[prefix.joined(separator: "/"), default: []].append(index)
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

    /// The first route, in order, that matches path and method.
    func match(_ head: RequestHead) -> (route: Route, parameters: [(name: String, value: String?)])? {
        let path = lowercasedPath(head.path)
        let exact = path.flatMap { literals[$0] } ?? []
        let exactIndex = exact.first { routes[$0].accepts(head) }
        if root.children.isEmpty, root.routes.isEmpty { return exactIndex.map { (routes[$0], []) } }
        guard let segments = decodedSegments(head.path) else { return exactIndex.map { (routes[$0], []) } }
        for index in candidates(segments) {
            if let exactIndex, exactIndex < index { break }
            guard routes[index].accepts(head), let values = routes[index].template.match(segments) else { continue }
            return (routes[index], values)
        }
        return exactIndex.map { (routes[$0], []) }
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

    /// The path in lower case without its outer slashes; nil when it holds escapes or empty segments.
    private func lowercasedPath(_ path: ArraySlice<UInt8>) -> String? {
        var slice = path.dropFirst()
        if slice.last == UInt8(ascii: "/") { slice = slice.dropLast() }
        var previous = UInt8(ascii: "/")
        var text: [UInt8] = []
        text.reserveCapacity(slice.count)
        for byte in slice {
            if byte == UInt8(ascii: "%") { return decodedSegments(path)?.joined(separator: "/").lowercased() }
            if byte == UInt8(ascii: "/"), previous == byte { return nil }
            previous = byte
            text.append(asciiLowercased(byte))
        }
        return String(decoding: text, as: UTF8.self)
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
