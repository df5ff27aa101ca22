/// The interpreter that runs a bundle: a virtual environment per set of dependencies, built once.
internal import ConfigurationFiles
public import Diagnostics
public import EventLoops
internal import Glibc

/// Builds and finds environments under a cache folder; safe for several hosts at once.
@EventLoop
public final class PythonEnvironments {
    private let cacheFolder: String
    private let python: String
    private let log: EventLog
    private var interpreter: (path: String, version: String)?
    private var building: [String: Task<Void, Never>] = [:]
    private var results: [String: Result<String, BundleError>] = [:]

    /// How long building one environment may take.
    public static let buildTimeout = Duration.seconds(1800)

    /// - Parameters:
    ///   - cacheFolder: Andiron's cache; environments lie in `environments/<hash>`.
    ///   - python: the interpreter to start from, a path or a name on PATH.
    public init(cacheFolder: String, python: String, log: EventLog) {
        self.cacheFolder = cacheFolder
        self.python = python
        self.log = log
    }

    /// The interpreter for `dependencies`, building its environment when it is not cached.
    ///
    /// A cached one needs no network. Two callers with equal dependencies share one build.
    public func interpreter(
        for dependencies: Dependencies, environment: [String: String]
    ) async throws(BundleError) -> String {
        let base = try await baseInterpreter(environment)
        if let wish = dependencies.python, !base.version.hasPrefix(wish + "."), base.version != wish {
            log.log(
                .warning, "another Python than the dependency file asks for",
                [("wanted", .text(wish)), ("used", .text(base.version))])
        }
        if dependencies.requirements.isEmpty { return base.path }
        let key = SHA256Digest(
            of: Array("python \(base.version)\n\(dependencies.requirements.joined(separator: "\n"))".utf8))
        let name = String("\(key)".prefix(24))
        let folder = "\(cacheFolder)/environments/\(name)"
        if access(folder + "/complete", F_OK) == 0 { return folder + "/bin/python" }
        if building[name] == nil {
            building[name] = loopTask { [self] in
                results[name] = await build(folder, base.path, dependencies.requirements, environment)
                building[name] = nil
            }
        }
        await building[name]?.value
        switch results[name] {
        case .success(let path): return path
        case .failure(let error): throw error
        case nil: throw .environment("the environment was not built", log: folder + ".log")
        }
    }

    /// Path and version of the interpreter behind `python`, asked once.
    private func baseInterpreter(_ environment: [String: String]) async throws(BundleError) -> (
        path: String, version: String
    ) {
        if let interpreter { return interpreter }
        guard let executable = findExecutable(python, environment) else {
            throw .python("'\(python)' is not an executable on PATH")
        }
        let code = "import sys, venv; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3])"
        let command = ChildCommand(
            executable: executable, arguments: ["-c", code], environment: environment, folder: "/")
        let (exit, output) = await collect(command, timeout: .seconds(30))
        let lines = output.split(separator: "\n").map(String.init)
        guard exit.status == 0, exit.signal == 0, lines.count >= 2 else {
            throw .python("'\(executable)' cannot be used: \(lines.last ?? "\(exit)")")
        }
        let found = (path: lines[0], version: lines[1])
        interpreter = found
        return found
    }

    private func build(
        _ folder: String, _ base: String, _ requirements: [String], _ environment: [String: String]
    ) async -> Result<String, BundleError> {
        let logPath = folder + ".log"
        do throws(SystemError) {
            try createFolders(cacheFolder + "/environments")
        } catch {
            return .failure(.environment(error.message, log: logPath))
        }
        let lock = await offload { lockFile(folder + ".lock") }
        defer { if lock >= 0 { close(lock) } }
        // Another host may have built it while this one waited for the lock.
        if access(folder + "/complete", F_OK) == 0 { return .success(folder + "/bin/python") }
        let start = monotonicNanoseconds()
        log.log(
            .information, "building a Python environment",
            [("packages", .text(requirements.joined(separator: " "))), ("log", .text(logPath))])
        await offload { removeFolder(folder) }
        do throws(SystemError) {
            try writeFileAtomically(folder + ".txt", Array((requirements.joined(separator: "\n") + "\n").utf8))
        } catch {
            return .failure(.environment(error.message, log: logPath))
        }
        let steps = [
            ChildCommand(executable: base, arguments: ["-m", "venv", folder], environment: environment, folder: "/"),
            ChildCommand(
                executable: folder + "/bin/python",
                arguments: [
                    "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "-r",
                    folder + ".txt",
                ],
                environment: environment, folder: "/"),
        ]
        var output = ""
        for step in steps {
            let (exit, text) = await collect(step, timeout: Self.buildTimeout)
            output += text
            try? writeFileAtomically(logPath, Array(output.utf8))
            guard exit.status == 0, exit.signal == 0 else {
                let reason =
                    text.split(separator: "\n").last { $0.hasPrefix("ERROR") || $0.contains("rror:") } ?? "\(exit)"
                return .failure(.environment("the Python environment could not be built: \(reason)", log: logPath))
            }
        }
        do throws(SystemError) {
            try writeFileAtomically(folder + "/complete", [])
        } catch {
            return .failure(.environment(error.message, log: logPath))
        }
        log.log(
            .information, "the Python environment is ready",
            [("seconds", .number(Double(monotonicNanoseconds() - start) / 1e9)), ("folder", .text(folder))])
        return .success(folder + "/bin/python")
    }
}

/// Runs a child to its end and returns what it printed, both streams together.
@EventLoop
func collect(_ command: ChildCommand, timeout: Duration) async -> (exit: ChildExit, output: String) {
    do throws(SystemError) {
        let child = try ChildProcess(command)
        let collector = OutputCollector()
        child.standardOutput.startReading(to: collector)
        child.standardError.startReading(to: collector)
        let timer = LoopTimer { child.kill(signal: SIGKILL) }
        timer.start(after: timeout)
        let exit = await child.waitForExit()
        timer.stop()
        await collector.ended.wait()
        return (exit, String(decoding: collector.bytes, as: UTF8.self))
    } catch {
        return (ChildExit(status: -1, signal: 0), error.message)
    }
}

/// Gathers two streams until both have ended.
@EventLoop
private final class OutputCollector: ByteStreamReader {
    var bytes: [UInt8] = []
    let ended = Gate()
    private var open = 2

    /// Bytes kept of a child's output.
    private static let byteLimit = 4 << 20

    func streamDidRead(_ bytes: UnsafeRawBufferPointer) {
        if self.bytes.count < Self.byteLimit { self.bytes.append(contentsOf: bytes) }
    }

    func streamDidEnd(_ error: SystemError?) {
        open -= 1
        if open == 0 { ended.open() }
    }
}

/// The file `name` stands for: itself when it is a path, else the first on PATH.
public func findExecutable(_ name: String, _ environment: [String: String]) -> String? {
    if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
    let path = environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
    return path.split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
}

/// Takes an exclusive lock, waiting for it; the descriptor holds it.
private func lockFile(_ path: String) -> Int32 {
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    if descriptor >= 0 { flock(descriptor, LOCK_EX) }
    return descriptor
}

/// Removes a folder and all below it, never following links; missing is fine.
public func removeFolder(_ path: String) {
    for name in folderEntries(path) {
        let entry = path + "/" + name
        var information = stat()
        if lstat(entry, &information) == 0, information.st_mode & S_IFMT == S_IFDIR {
            removeFolder(entry)
        } else {
            unlink(entry)
        }
    }
    rmdir(path)
}
