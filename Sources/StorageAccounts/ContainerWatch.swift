/// Watches containers of a storage folder: file-system events, and scans that make lost events harmless.
internal import CLinux
internal import CLinux
internal import ConfigurationFiles
internal import Diagnostics
public import EventLoops
internal import Glibc

/// Is told of blobs that appear in a container. Being told twice, or of blobs that are gone again, is normal.
@EventLoop
public protocol BlobObserver: AnyObject {
    /// The container it observes.
    var container: String { get }
    /// A writer has closed a blob, or moved it here.
    func blobWritten(_ name: String)
    /// A blob went away.
    func blobRemoved(_ name: String)
    /// A page of a scan; the next one comes after this returns.
    func blobsFound(_ blobs: [FoundBlob]) async
    /// A scan of the whole container has ended.
    func scanEnded()
    /// Watching failed, or works again (nil).
    func watchFailed(_ error: StorageError?)
}

/// The events of one storage folder.
@EventLoop
final class ContainerWatch {
    private struct Observed {
        var observers: [any BlobObserver] = []
        /// Folders to be walked, "" for all; nil while no walk runs.
        var waiting: Set<String>?
        var isPolled = false
    }

    private let folder: BlobFolder
    private let log: EventLog
    private var watch: FolderWatch?
    private var containers: [String: Observed] = [:]
    private var pollTimer: LoopTimer?

    /// How often a container is looked at when its file system, or the system's limit, gives no events.
    static let pollInterval = Duration.seconds(10)

    init(folder: BlobFolder, log: EventLog) throws(SystemError) {
        self.folder = folder
        self.log = log
        watch = try FolderWatch { [unowned self] change in self.changed(change) }
        try watch?.add(folder: folder.root)
        pollTimer = LoopTimer { [unowned self] in self.poll() }
    }

    /// Tells `observer` of its container from now on, beginning with a scan.
    func add(_ observer: any BlobObserver) {
        let name = observer.container
        containers[name, default: Observed()].observers.append(observer)
        if Self.givesNoEvents(folder.root) { polls(name) }
        scan(name, from: "")
    }

    func remove(_ observer: any BlobObserver) {
        let name = observer.container
        containers[name]?.observers.removeAll { $0 === observer }
        if containers[name]?.observers.isEmpty == true {
            containers[name] = nil
            watch?.remove(tree: "\(folder.root)/\(name)")
        }
    }

    /// Looks at a whole container again.
    func rescan(_ container: String) { scan(container, from: "") }

    // MARK: Events

    private func changed(_ change: FolderChange) {
        switch change {
        case .overflowed:
            log.log(.information, "more files changed than the system remembers: looking at all of them")
            for name in containers.keys { scan(name, from: "") }
        case .written(let path): tell(path) { $0.blobWritten($1) }
        case .removed(let path): tell(path) { $0.blobRemoved($1) }
        case .folderCreated(let path):
            guard let (container, name) = split(path), containers[container] != nil else { return }
            scan(container, from: name)
        case .folderRemoved(let path):
            watch?.remove(tree: path)
            if path == folder.root { rootIsGone() }
        case .fileCreated(let path):
            // A hard or symbolic link is complete as it appears; a file is told of when it is closed.
            var information = stat()
            guard lstat(path, &information) == 0 else { return }
            if information.st_mode & S_IFMT == S_IFREG, information.st_nlink < 2 { return }
            tell(path) { $0.blobWritten($1) }
        }
    }

    private func rootIsGone() {
        for observed in containers.values {
            for observer in observed.observers {
                observer.watchFailed(.folder(path: folder.root, reason: "it was removed"))
            }
        }
        for name in containers.keys { polls(name) }
    }

    /// Container and blob name of a path below the root.
    private func split(_ path: String) -> (container: String, name: String)? {
        let relative = path.dropFirst(folder.root.count + 1)
        if relative.isEmpty { return nil }
        guard let slash = relative.firstIndex(of: "/") else { return (String(relative), "") }
        return (String(relative[..<slash]), String(relative[relative.index(after: slash)...]))
    }

    private func tell(_ path: String, _ what: (any BlobObserver, String) -> Void) {
        guard let (container, name) = split(path), !name.isEmpty, let observed = containers[container] else { return }
        for observer in observed.observers { what(observer, name) }
    }

    // MARK: Scans

    private func scan(_ container: String, from prefix: String) {
        guard containers[container] != nil else { return }
        if containers[container]?.waiting != nil {
            containers[container]?.waiting?.insert(prefix)
            return
        }
        containers[container]?.waiting = []
        loopTask { [weak self] in
            var next: String? = prefix
            while let prefix = next, let self {
                await self.walk(container, from: prefix)
                next = self.containers[container]?.waiting?.popFirst()
            }
            self?.containers[container]?.waiting = nil
        }
    }

    private func walk(_ container: String, from prefix: String) async {
        let path = "\(folder.root)/\(container)"
        // The watch comes first, so that nothing falls between the list and the events.
        guard isFolder(path) else { return }
        watchFolder(container, prefix)
        let walk = TreeWalk(containerPath: path, prefix: prefix)
        while true {
            let step = await offload { walk.step() }
            for name in step.folders { watchFolder(container, name) }
            guard let observed = containers[container] else { return }
            if !step.blobs.isEmpty {
                for observer in observed.observers { await observer.blobsFound(step.blobs) }
            }
            if step.isDone { break }
        }
        if prefix.isEmpty { for observer in containers[container]?.observers ?? [] { observer.scanEnded() } }
    }

    private func watchFolder(_ container: String, _ name: String) {
        let path = "\(folder.root)/\(container)" + (name.isEmpty ? "" : "/" + name)
        do throws(SystemError) {
            try watch?.add(folder: path)
        } catch {
            guard error.symbol == "ENOSPC" || error.symbol == "ENOMEM" else { return }
            if containers[container]?.isPolled == false {
                log(
                    HostEvent(
                        .log, .warning, StorageError.watchLimit(folder: path).description, [("code", .text("AN7021"))]))
            }
            polls(container)
        }
    }

    private func polls(_ container: String) {
        containers[container]?.isPolled = true
        if pollTimer?.isActive == false { pollTimer?.start(after: Self.pollInterval, every: Self.pollInterval) }
    }

    private func poll() {
        if !isFolder(folder.root) {
            do throws(StorageError) {
                try folder.prepare()
                try? watch?.add(folder: folder.root)
                for observed in containers.values { for observer in observed.observers { observer.watchFailed(nil) } }
                log.log(.information, "the storage folder is there again")
            } catch {
                return
            }
        }
        var left = false
        for (name, observed) in containers where observed.isPolled {
            scan(name, from: "")
            left = true
        }
        if !left { pollTimer?.stop() }
    }

    /// File systems whose changes another machine can make, or that report none: NFS, SMB, 9P, FUSE.
    private static func givesNoEvents(_ path: String) -> Bool {
        [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x0102_1997, 0x6573_5546].contains(andiron_file_system_kind(path))
    }
}
