/// The host's id: the same for every start of an app on a machine.
internal import ConfigurationFiles
internal import EventLoops
internal import FunctionApps
internal import Glibc
internal import Invocations

extension FunctionHost {
    /// Machine name and a hash of the app's path, or the setting that overrides it (ScriptHostIdProvider).
    var hostID: String {
        if let id = app.settings["AzureFunctionsWebHost__hostid"] { return id }
        var hash: Int32 = 23
        for unit in options.folder.utf16 { hash = hash &* 31 &+ Int32(unit) }
        let name = machineName().lowercased().filter { $0.isASCII && ($0.isLetter || $0.isNumber) }
        return String("\(name)-\(hash.magnitude)".prefix(32))
    }
}

/// The machine's name.
func machineName() -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    gethostname(&buffer, buffer.count - 1)
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

extension FunctionHost {
    /// The name of a loaded function, in its own spelling.
    func functionName(like name: String) -> String {
        runtimes.first { $0.metadata.name.caseInsensitiveEquals(name) }?.metadata.name ?? name
    }
}
