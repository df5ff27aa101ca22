/// Finding and calling a host that runs already.
import ArgumentParser
import ConfigurationFiles
import EventLoops
import HTTPClients
import JSONText

/// The options that say which host is meant.
struct RunningHost: ParsableArguments {
    @Option(help: "The host's URL (default: from --ready-file, else http://127.0.0.1:7071).")
    var url: String?

    @Option(help: "The ready file of the host.")
    var readyFile: String?

    /// The base URL, without a slash at its end; nil while the ready file is not there.
    func base() -> String? {
        if let url { return url.hasSuffix("/") ? String(url.dropLast()) : url }
        guard let readyFile else { return "http://127.0.0.1:7071" }
        let bytes = readFile(absolutePath(readyFile, in: currentFolder()))
        return bytes.flatMap { try? JSONParser.parse($0) }?["url"]?.string
    }
}
