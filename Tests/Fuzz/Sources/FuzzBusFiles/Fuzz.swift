/// What administrators give the broker: Atom documents and the emulator's configuration.
import BusFiles
import CFuzzer
import ConfigurationFiles

@_cdecl("busfiles_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    _ = (try? XMLNode.parse(bytes))?.first("QueueDescription")
    if let file = try? ConfigurationFile(displayName: "Config.json", bytes: bytes) {
        for queue in EmulatorConfiguration(file: file).queues {
            precondition(EntityName.isValid(queue.name), "a wrong name was taken")
            let text = ISODuration.text(queue.settings.lockDuration)
            precondition(ISODuration.milliseconds(text) == queue.settings.lockDuration, "a duration changed")
        }
    }
    return 0
}
