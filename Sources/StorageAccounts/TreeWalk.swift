/// Walking a container step by step, off the loop: names and ETags, no contents.
internal import CLinux
internal import Glibc

/// What one step of a walk found.
struct WalkStep: Sendable {
    var blobs: [FoundBlob] = []
    /// Folders that are listed in the next steps; whoever watches must do so before.
    var folders: [String] = []
    var isDone = false
}

// SAFETY: used by one step at a time, each begun when the one before has ended.
/// One walk below a folder of a container. Links to folders are not followed.
final class TreeWalk: @unchecked Sendable {
    private let containerPath: String
    private var folders: [String]
    private var stream: OpaquePointer?
    private var current = ""

    /// Entries looked at in one step.
    static let stepLimit = 1000

    /// - Parameter prefix: a folder of the container to begin with, or "" for all of it.
    init(containerPath: String, prefix: String = "") {
        self.containerPath = containerPath
        folders = [prefix]
    }

    deinit { if let stream { closedir(stream) } }

    private func path(_ name: String) -> String { name.isEmpty ? containerPath : containerPath + "/" + name }

    /// Looks at the next entries. Blocking.
    func step() -> WalkStep {
        var step = WalkStep()
        var looked = 0
        while looked < Self.stepLimit {
            if stream == nil {
                // Folders found in this step are not watched yet.
                guard step.folders.isEmpty || looked == 0 else { return step }
                guard let next = folders.popLast() else {
                    step.isDone = true
                    return step
                }
                current = next
                stream = opendir(path(next))
                if stream == nil { continue }
            }
            guard let stream, let entry = readdir(stream) else {
                if let stream { closedir(stream) }
                self.stream = nil
                if !step.folders.isEmpty { return step }
                continue
            }
            looked += 1
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name == "." || name == ".." { continue }
            look(at: current.isEmpty ? name : current + "/" + name, Int32(entry.pointee.d_type), stream, name, &step)
        }
        return step
    }

    private func look(at full: String, _ type: Int32, _ stream: OpaquePointer, _ name: String, _ step: inout WalkStep) {
        var information = stat()
        let isKnownFolder = type == Int32(DT_DIR)
        if !isKnownFolder {
            guard fstatat(dirfd(stream), name, &information, 0) == 0 else { return }
        }
        if isKnownFolder || type == Int32(DT_UNKNOWN) && information.st_mode & S_IFMT == S_IFDIR {
            step.folders.append(full)
            folders.append(full)
        } else {
            // Pipes, devices and links are found too: reading them says what is wrong with them.
            step.blobs.append(FoundBlob(name: full, etag: BlobFolder.etag(information)))
        }
    }
}
