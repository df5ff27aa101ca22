/// Connection strings, and what a Redis server may send: no input may crash, and what is read is read the same again.
internal import CFuzzer

private func check(_ bytes: UnsafeRawBufferPointer) {
    guard let kind = bytes.first else { return }
    let rest = UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
    if kind % 2 == 0 {
        let text = String(decoding: rest, as: UTF8.self)
        guard let address = try? RedisAddress(text) else { return }
        precondition(!address.endpoints.isEmpty, "an address without a server")
        // The URL made for entry scripts leads to the same place.
        guard address.endpoints.count == 1, let url = address.environment["REDIS_URL"] else { return }
        guard let again = try? RedisAddress(url) else { preconditionFailure("\(url) cannot be read") }
        precondition(again.endpoints == address.endpoints && again.database == address.database, "\(text) and \(url)")
        precondition((again.password ?? "") == (address.password ?? ""), "\(text) and \(url)")
        return
    }
    guard let reader = RedisReplyReader(), let replies = try? reader.feed(rest) else { return }
    let asked = RedisEndpoint(host: "asked", port: 1)
    for reply in replies {
        if let map = RedisSlotMap(reply: reply, asked: asked) {
            for slot in 0..<RedisSlotMap.slotCount { _ = map.node(of: slot) }
        }
        if case .error(let text) = reply { _ = RedisRedirection(text, asked: asked) }
        if case .bytes(let key) = reply { precondition(RedisSlotMap.slot(of: key) < RedisSlotMap.slotCount, "slot") }
    }
}

@_cdecl("redis_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { data, count in
        check(UnsafeRawBufferPointer(start: data, count: count))
        return 0
    }
}
