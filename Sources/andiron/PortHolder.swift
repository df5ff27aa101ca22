/// Who holds a port, as far as /proc tells.
import ConfigurationFiles
import EventLoops
import Glibc

/// The message for a host that could not start.
func startFailure(_ error: SystemError, port: Int) -> String {
    guard error.symbol == "EADDRINUSE" else {
        return "error[AN1001]: \(error.message)"
    }
    var text = "error[AN1003]: Port \(port) is unavailable."
    if let holder = portHolder(port) { text += " It is held by \(holder)." }
    return text
        + "\n  try: Close the process using that port, or specify another port using --port [-p]; --port 0 takes a free one"
}

/// Process id and command of whoever listens on a TCP port; nil when it cannot be seen.
func portHolder(_ port: Int) -> String? {
    guard let inode = listeningInode(port) else { return nil }
    for pid in folderEntries("/proc") where pid.allSatisfy(\.isNumber) {
        for descriptor in folderEntries("/proc/\(pid)/fd") {
            var buffer = [CChar](repeating: 0, count: 256)
            let length = readlink("/proc/\(pid)/fd/\(descriptor)", &buffer, buffer.count - 1)
            guard length > 0 else { continue }
            let target = String(decoding: buffer[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if target == "socket:[\(inode)]" {
                let name = readFile("/proc/\(pid)/comm").map {
                    String(decoding: $0, as: UTF8.self).filter { $0 != "\n" }
                }
                return "process \(pid) (\(name ?? "?"))"
            }
        }
    }
    return nil
}

private func listeningInode(_ port: Int) -> String? {
    let hexadecimal = String(port, radix: 16, uppercase: true)
    let suffix = ":" + String(repeating: "0", count: 4 - hexadecimal.count) + hexadecimal
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        guard let bytes = readFile(table) else { continue }
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n").dropFirst() {
            let fields = line.split(separator: " ")
            // 0A is TCP_LISTEN.
            if fields.count > 9, fields[1].hasSuffix(suffix), fields[3] == "0A" { return String(fields[9]) }
        }
    }
    return nil
}
