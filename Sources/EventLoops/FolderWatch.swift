/// Changes of files in folders, by raw inotify: `uv_fs_event` loses events in silence when its queue
/// overflows and cannot tell a finished write (docs/decisions/002-raw-inotify.md).
internal import CUV
internal import Glibc

/// One change below a watched folder.
public enum FolderChange: Sendable, Equatable {
    /// A file was written and closed, or moved in; the path is full.
    case written(path: String)
    /// A file or folder went away or was moved out.
    case removed(path: String)
    /// A folder appeared.
    case folderCreated(path: String)
    /// A folder went away or was moved out; what was watched below it is so no more.
    case folderRemoved(path: String)
    /// A name appeared that is no folder. What is written to it is reported when it is closed; a link is never closed.
    case fileCreated(path: String)
    /// Events were lost; the owner has to look for itself.
    case overflowed
}

/// Watches any number of folders (not their sub-folders) until dropped.
@EventLoop
public final class FolderWatch {
    private let descriptor: Int32
    private var poll: PollHandle?
    private var folders: [Int32: String] = [:]
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 8)
    private let changed: @EventLoop (FolderChange) -> Void

    private static let mask = UInt32(
        IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_ONLYDIR
            | IN_EXCL_UNLINK)

    /// - Throws: ``SystemError`` when the system has no inotify instance left.
    public init(_ changed: @escaping @EventLoop (FolderChange) -> Void) throws(SystemError) {
        self.changed = changed
        descriptor = inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC))
        guard descriptor >= 0 else { throw SystemError(errno: errno, call: "inotify_init1") }
        poll = try PollHandle(descriptor: descriptor) { [unowned self] _, _ in self.readEvents() }
        poll?.watch(readable: true, writable: false)
    }

    isolated deinit {
        poll = nil
        Glibc.close(descriptor)
        buffer.deallocate()
    }

    /// Adds a folder; one already watched stays watched once.
    public func add(folder: String) throws(SystemError) {
        let watch = inotify_add_watch(descriptor, folder, Self.mask)
        guard watch >= 0 else { throw SystemError(errno: errno, call: "inotify_add_watch", subject: folder) }
        folders[watch] = folder
    }

    /// How many folders are watched.
    public var folderCount: Int { folders.count }

    /// Watches a folder and all below it no more.
    public func remove(tree path: String) {
        let prefix = path + "/"
        for (watch, folder) in folders where folder == path || folder.hasPrefix(prefix) {
            inotify_rm_watch(descriptor, watch)
            folders[watch] = nil
        }
    }

    private func readEvents() {
        while true {
            let count = read(descriptor, buffer.baseAddress, buffer.count)
            guard count > 0 else { return }
            var offset = 0
            let header = MemoryLayout<inotify_event>.size
            while offset + header <= count {
                let event = buffer.loadUnaligned(fromByteOffset: offset, as: inotify_event.self)
                let nameBytes = UnsafeRawBufferPointer(
                    rebasing: buffer[(offset + header)..<(offset + header + Int(event.len))])
                let name = String(decoding: nameBytes.prefix { $0 != 0 }, as: UTF8.self)
                offset += header + Int(event.len)
                deliver(event, name)
            }
        }
    }

    private func deliver(_ event: inotify_event, _ name: String) {
        if event.mask & UInt32(IN_Q_OVERFLOW) != 0 { return changed(.overflowed) }
        guard let folder = folders[event.wd] else { return }
        let path = name.isEmpty ? folder : folder + "/" + name
        if event.mask & UInt32(IN_IGNORED) != 0 {
            folders[event.wd] = nil
        } else if event.mask & UInt32(IN_DELETE | IN_MOVED_FROM) != 0, event.mask & UInt32(IN_ISDIR) != 0 {
            changed(.folderRemoved(path: path))
        } else if event.mask & UInt32(IN_DELETE_SELF) != 0 {
            changed(.folderRemoved(path: path))
        } else if event.mask & UInt32(IN_DELETE | IN_MOVED_FROM) != 0 {
            changed(.removed(path: path))
        } else if event.mask & UInt32(IN_ISDIR) != 0 {
            changed(.folderCreated(path: path))
        } else if event.mask & UInt32(IN_CLOSE_WRITE | IN_MOVED_TO) != 0 {
            changed(.written(path: path))
        } else if event.mask & UInt32(IN_CREATE) != 0 {
            changed(.fileCreated(path: path))
        }
    }
}
