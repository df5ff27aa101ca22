/// The command line. Only here is anything printed, and only here does the process end.
import ArgumentParser
import Diagnostics
import EventLoops
import Glibc

/// `andiron`, with a command per file.
@main
struct Andiron: ParsableCommand {
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "andiron",
        abstract: "A serverless function host for machine-learning models, on one machine, without Azure.",
        discussion: """
            Examples:
              andiron start                               run the function app in this folder
              andiron invoke DigitsScore -d @digit.json   call a function of the running host
            """,
        version: version,
        subcommands: [
            Start.self, Validate.self, Prepare.self, Wait.self,
            Invoke.self, BlobCommand.self, QueueCommand.self, CacheCommand.self, Trigger.self, Batch.self, Image.self,
            Package.self, Model.self, Group.self, AppService.self, Storage.self, ContainerRegistry.self,
            FunctionAppCommand.self, Redis.self,
        ])
}

/// Exit codes, after sysexits.h; documented in docs/reference/cli.md.
enum ExitStatus: Int32 {
    case done = 0
    case failed = 1
    case badData = 65
    case missingFile = 66
    case unavailable = 69
    case cannotCreate = 73
    case timedOut = 75
    case refused = 77
    case badConfiguration = 78
}

/// Writes to standard error.
func complain(_ text: String) {
    let line = Array((text + "\n").utf8)
    _ = line.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
}

/// Writes to standard output.
func output(_ bytes: [UInt8]) {
    var offset = 0
    bytes.withUnsafeBytes { memory in
        while offset < memory.count {
            let count = write(1, memory.baseAddress?.advanced(by: offset), memory.count - offset)
            guard count > 0 else { return }
            offset += count
        }
    }
}

/// Runs `body` on the loop until it returns, then ends the process with its status.
func runLoop(_ body: @escaping @EventLoop () async -> ExitStatus) -> Never {
    EventLoop.executor.bind()
    let status = EventLoop.assumeIsolated { StatusBox() }
    loopTask {
        status.value = await body()
        EventLoop.executor.stop()
    }
    EventLoop.executor.run()
    exit(EventLoop.assumeIsolated { status.value.rawValue })
}

@EventLoop
private final class StatusBox {
    var value = ExitStatus.failed
}

/// The process environment.
func processEnvironment() -> [String: String] {
    var result: [String: String] = [:]
    var entry = environ
    while let text = entry.pointee {
        let pair = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        if pair.count == 2 { result[String(pair[0])] = String(pair[1]) }
        entry += 1
    }
    return result
}

/// The folder the process was started in.
func currentFolder() -> String {
    guard let path = getcwd(nil, 0) else { return "/" }
    defer { free(path) }
    return String(cString: path)
}
