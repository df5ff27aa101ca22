/// host.json and function.json: no crash, every problem has a place inside the file, and JSON that is read is
/// written back to the same value.
import CFuzzer
import ConfigurationFiles
import FunctionApps
import Glibc
import JSONText

private let folder: String = {
    let path = "/tmp/andiron-fuzz-\(getpid())"
    mkdir(path, 0o755)
    mkdir(path + "/F", 0o755)
    return path
}()

@_cdecl("configuration_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return LLVMFuzzerRunDriver(&count, &arguments) { fuzz($0, $1) }
}

private func fuzz(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard count > 0, let data else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: data + 1, count: count - 1))
    if let value = try? JSONParser.parse(bytes, allowsComments: true) {
        var writer = JSONWriter()
        writer.value(value)
        let again = try? JSONParser.parse(writer.bytes)
        precondition(again?.canonicalBytes == value.canonicalBytes, "written differently")
    }
    let isHost = data[0] & 1 == 0
    write(isHost ? folder + "/host.json" : folder + "/F/function.json", bytes)
    if !isHost { write(folder + "/host.json", Array(#"{"version":"2.0"}"#.utf8)) }
    let app = FunctionApp.load(folder: folder, environment: [:])
    for problem in app.problems {
        if let place = problem.place, place.line > 0 { precondition(place.column > 0) }
        _ = problem.text
    }
    return 0
}

private func write(_ path: String, _ bytes: [UInt8]) {
    guard let file = fopen(path, "w") else { return }
    fwrite(bytes, 1, bytes.count, file)
    fclose(file)
}
