/// What registries and users write: names, manifests, configurations, challenges, errors, queries. No crash, and a
/// name that is read is read again as the same.
import CFuzzer
import JSONText
import Resources

@testable import Images

@_cdecl("registry_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private let decoder = ManifestDecoder(image: "fuzz")

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    guard let kind = bytes.first else { return 0 }
    let rest = Array(bytes.dropFirst())
    let text = String(decoding: rest, as: UTF8.self)
    switch kind % 6 {
    case 0:
        guard let reference = try? ImageReference(text) else { break }
        let again = try? ImageReference("\(reference)")
        precondition(again == reference, "'\(reference)' is read as another name")
    case 1:
        if case .index(let entries)? = try? decoder.manifest(rest, contentType: "") {
            _ = try? decoder.choose(entries, for: .current)
        }
    case 2: _ = try? decoder.configuration(rest, layerCount: 1)
    case 3:
        _ = RegistryChallenge(text)
        _ = parseRetryAfter(text)
    case 4:
        _ = registryErrors(rest)
        if let decoded = decodeBase64(text) { precondition(decodeBase64(encodeBase64(decoded)) == decoded) }
    default: _ = ResourceQuery(text)?.apply(.record(["a": .list([["b": .text("c")]])]))
    }
    return 0
}
