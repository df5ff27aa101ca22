/// Request heads: no crash, the same result however they are cut, and never accepted where http-parser, a
/// lenient parser, sees another framing.
import CFuzzer
import CHTTPParser
import HTTPMessages

@_cdecl("http_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    let whole = RequestParser.parse(bytes.span)
    for cut in [count / 3, count / 2, max(0, count - 1)] {
        let part = Array(bytes[..<cut])
        if case .complete(let early, let used) = RequestParser.parse(part.span) {
            guard case .complete(let head, let all) = whole, all == used, head.path == early.path else {
                fatalError("another result after \(cut) bytes")
            }
        }
    }
    guard case .complete(let head, let used) = whole else { return 0 }
    precondition(used <= count)
    _ = head.allFields
    _ = PercentCoding.decode(head.path)
    _ = PercentCoding.query(head.query)
    let verdict = bytes.withUnsafeBytes {
        andiron_judge($0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
    }
    // http-parser refuses methods it does not know; only what both accept can differ.
    guard verdict.complete == 1 else { return 0 }
    switch head.framing {
    case .chunked: precondition(verdict.chunked == 1, "chunked to us, not to http-parser")
    case .length(let length): precondition(verdict.chunked == 0 && verdict.length == UInt64(length), "another length")
    case .none:
        precondition(verdict.chunked == 0 && (verdict.length == 0 || verdict.length == .max), "a body we do not see")
    }
    return 0
}
