/// Child processes: spawned in a group of their own, with a framed channel on descriptor 3.
internal import CUV
internal import Glibc

/// How a child ended.
public struct ChildExit: Sendable, Equatable, CustomStringConvertible {
    /// The exit status, when it was not a signal.
    public let status: Int
    /// The signal that ended it, or 0.
    public let signal: Int

    public init(status: Int, signal: Int) {
        self.status = status
        self.signal = signal
    }

    public var description: String {
        signal == 0 ? "exit status \(status)" : "signal \(signal) (\(String(cString: strsignal(Int32(signal)))))"
    }
}

/// What to run.
public struct ChildCommand: Sendable {
    public var executable: String
    public var arguments: [String]
    public var environment: [String: String]
    public var folder: String
    /// Given to the child as descriptor 4, or none.
    public var inheritedDescriptor: Int32?
    /// Whether the child gets a socket to the host as descriptor 3.
    public var hasChannel: Bool

    public init(
        executable: String, arguments: [String], environment: [String: String], folder: String,
        hasChannel: Bool = false, inheritedDescriptor: Int32? = nil
    ) {
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.folder = folder
        self.hasChannel = hasChannel
        self.inheritedDescriptor = inheritedDescriptor
    }
}

/// A running child. Dropping it does not end it; ``kill(signal:)`` does.
@EventLoop
public final class ChildProcess {
    private var handle: UnsafeMutablePointer<uv_process_t>
    private let exited = Gate()
    /// The process id, also the id of its process group.
    public private(set) var pid: Int32 = 0
    /// The child's standard output.
    public let standardOutput: ByteStream
    /// The child's standard error.
    public let standardError: ByteStream
    /// The host's end of descriptor 3, when the command asked for it.
    public let channel: ByteStream?
    /// Set once the child has ended.
    public private(set) var exit: ChildExit?

    /// - Throws: ``SystemError`` when the program cannot be started; nothing is left behind.
    public init(_ command: ChildCommand) throws(SystemError) {
        handle = .allocate(capacity: 1)
        standardOutput = .pipe()
        standardError = .pipe()
        channel = command.hasChannel ? .pipe() : nil
        let status = Self.spawn(
            command, into: handle, [standardOutput.stream, standardError.stream, channel?.stream])
        guard status == 0 else {
            uv_close(andiron_handle(handle)) { closed in closed?.deallocate() }
            throw SystemError("spawn", status, command.executable)
        }
        pid = handle.pointee.pid
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()  // SAFETY: released in the exit callback.
        // libuv delivers the exit through the loop, so the callback cannot come before `data` is set.
    }

    private static func spawn(
        _ command: ChildCommand, into handle: UnsafeMutablePointer<uv_process_t>,
        _ streams: [UnsafeMutablePointer<uv_stream_t>?]
    ) -> Int32 {
        var options = uv_process_options_t()
        var slots = [uv_stdio_container_t](repeating: uv_stdio_container_t(), count: 5)
        let ignore = Int32(UV_IGNORE.rawValue)
        let pipe = Int32(UV_CREATE_PIPE.rawValue | UV_READABLE_PIPE.rawValue | UV_WRITABLE_PIPE.rawValue)
        andiron_stdio(&slots[0], ignore, nil, -1)
        for (index, stream) in streams.enumerated() {
            andiron_stdio(&slots[index + 1], stream == nil ? ignore : pipe, stream, -1)
        }
        if let inherited = command.inheritedDescriptor {
            andiron_stdio(&slots[4], Int32(UV_INHERIT_FD.rawValue), nil, inherited)
        } else {
            andiron_stdio(&slots[4], ignore, nil, -1)
        }
        let arguments = ([command.executable] + command.arguments).map { strdup($0) } + [nil]
        let environment = command.environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { (arguments + environment).forEach { free($0) } }
        options.exit_cb = { handle, status, signal in
            guard let handle else { return }
            let data = handle.pointee.data
            uv_close(andiron_handle(handle)) { closed in closed?.deallocate() }
            guard let data else { return }
            let me = Unmanaged<ChildProcess>.fromOpaque(data).takeRetainedValue()  // SAFETY: see init.
            EventLoop.assumeIsolated { me.ended(ChildExit(status: Int(status), signal: Int(signal))) }
        }
        // UV_PROCESS_DETACHED gives the child a session and group of its own, so that a group can be ended.
        andiron_spawn_flags(&options, UV_PROCESS_DETACHED.rawValue)
        return command.executable.withCString { file in
            command.folder.withCString { folder in
                arguments.withUnsafeBufferPointer { argv in
                    environment.withUnsafeBufferPointer { envp in
                        slots.withUnsafeMutableBufferPointer { stdio in
                            options.file = file
                            options.cwd = folder
                            options.args = UnsafeMutablePointer(mutating: argv.baseAddress)
                            options.env = UnsafeMutablePointer(mutating: envp.baseAddress)
                            options.stdio = stdio.baseAddress
                            options.stdio_count = 5
                            return uv_spawn(EventLoop.executor.loop, handle, &options)
                        }
                    }
                }
            }
        }
    }

    private func ended(_ exit: ChildExit) {
        self.exit = exit
        exited.open()
    }

    /// Waits for the end.
    public func waitForExit() async -> ChildExit {
        await exited.wait()
        return exit ?? ChildExit(status: -1, signal: 0)
    }

    /// Sends `signal` to the whole group; harmless after the end.
    public func kill(signal: Int32) {
        // The group may outlive its leader when user code forked, so a finished leader is no reason to stop.
        if pid > 0 { Glibc.kill(-pid, signal) }
    }
}
