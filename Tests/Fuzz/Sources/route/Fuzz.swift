/// Route templates: no crash, and a template that is read matches only with the parameters it has.
import CFuzzer
import FunctionApps

@_cdecl("route_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let text = String(decoding: UnsafeBufferPointer(start: data, count: count), as: UTF8.self)
    let parts = text.split(separator: "\n", maxSplits: 1, omittingEmptySubsequences: false)
    // A pattern may take for ever; that is its author's affair, not the parser's.
    guard parts.count == 2, !parts[0].contains("regex"), let template = try? RouteTemplate(String(parts[0])) else {
        return 0
    }
    let path = parts[1].split(separator: "/").map(String.init)
    if let values = template.match(path) {
        precondition(values.count == template.parameters.count, "another number of values")
    }
    return 0
}
