/// A word of memory shared with a child process.
internal import CUV
internal import Glibc

/// One 32-bit word in a memory file, which a child maps through an inherited descriptor.
@EventLoop
public final class SharedWord {
    /// The memory file; pass it to the child.
    public let descriptor: Int32
    private let memory: UnsafeMutableRawPointer

    public init() throws(SystemError) {
        let size = Int(sysconf(Int32(_SC_PAGESIZE)))
        descriptor = andiron_memfd_create("andiron")
        guard descriptor >= 0 else { throw SystemError(errno: errno, call: "memfd_create") }
        guard ftruncate(descriptor, size) == 0,
            let mapped = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), mapped != MAP_FAILED
        else {
            let reason = errno
            close(descriptor)
            throw SystemError(errno: reason, call: "mmap")
        }
        memory = mapped
    }

    isolated deinit {
        munmap(memory, Int(sysconf(Int32(_SC_PAGESIZE))))
        close(descriptor)
    }

    /// What the child wrote last.
    public var value: UInt32 { memory.load(as: UInt32.self) }
}
