/// Path patterns, connection strings, binding templates and the XML of storage services.
import CFuzzer
import FunctionApps
import Invocations
import XMLTexts

@_cdecl("storage_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    guard let kind = bytes.first else { return 0 }
    let text = String(decoding: bytes.dropFirst(), as: UTF8.self)
    switch kind % 4 {
    case 0: pattern(text)
    case 1:
        if let connection = try? StorageConnection(text) {
            precondition(connection.isEmbedded || !(connection.blobEndpoint + connection.queueEndpoint).isEmpty)
        }
        if let decoded = decodeBase64(text) { precondition(decodeBase64(encodeBase64(decoded)) == decoded) }
    case 2:
        if let template = try? BindingTemplate(text) { _ = try? template.resolve(BindingData(), functionName: "F") }
    default: _ = XMLReader.leaves(of: Array(bytes.dropFirst()))
    }
    return 0
}

/// A match puts together to the name it came from; and the fast matcher says what a slow one says that tries everything.
private func pattern(_ text: String) {
    let parts = text.split(separator: "\n", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2, let pattern = try? BlobPathPattern("data/" + parts[0]) else { return }
    let name = parts[1]
    guard let template = try? BindingTemplate(parts[0]) else { preconditionFailure("a pattern that is no template") }
    let found = pattern.match(container: "data", name: name)
    if let found {
        var data = BindingData()
        for (index, capture) in found.enumerated() { data.set("c\(index)", capture.value) }
        var number = 0
        var whole = ""
        for part in template.parts {
            switch part {
            case .literal(let literal): whole += literal
            case .expression:
                whole += found[number].value
                number += 1
            }
        }
        precondition(Array(whole.utf8).count == Array(name.utf8).count, "the parts are not the name")
    }
    guard name.utf8.count <= 10, template.parts.count <= 5 else { return }
    precondition((found != nil) == matches(template.parts[...], Array(name.utf8)[...]), "the two matchers disagree")
}

private func matches(_ parts: ArraySlice<BindingTemplate.Part>, _ name: ArraySlice<UInt8>) -> Bool {
    guard let first = parts.first else { return name.isEmpty }
    switch first {
    case .literal(let literal):
        let bytes = Array(literal.utf8)
        return name.starts(with: bytes) && matches(parts.dropFirst(), name.dropFirst(bytes.count))
    case .expression:
        return (0...name.count).contains { matches(parts.dropFirst(), name.dropFirst($0)) }
    }
}
