/// Tests run on the real loop: one thread of the test process becomes the loop's thread.
internal import EventLoops
internal import Glibc

private let started: Void = {
    var thread = pthread_t()
    let ready = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    sem_init(ready, 0, 0)
    pthread_create(
        &thread, nil,
        { argument in
            EventLoop.executor.bind()
            if let argument { sem_post(argument.assumingMemoryBound(to: sem_t.self)) }
            EventLoop.executor.run()
            return nil
        }, ready)
    sem_wait(ready)
}()

/// Runs `body` on the loop, in a root task as the host's are, and returns what it returns.
public func onTheLoop<T: Sendable>(_ body: @escaping @EventLoop @Sendable () async throws -> T) async throws -> T {
    _ = started
    return try await withCheckedThrowingContinuation { continuation in
        Task { @EventLoop in
            loopTask {
                do {
                    continuation.resume(returning: try await body())
                } catch {
                    continuation.resume(throwing: error)
                }
            }
        }
    }
}

/// A folder that is removed when the value goes.
public final class TemporaryFolder: Sendable {
    public let path: String

    public init() {
        var template = Array("/tmp/andiron-test-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress, mkdtemp(base) != nil else { return "/tmp" }
            return String(cString: base)
        }
    }

    deinit { remove(path) }

    /// Writes a file, making its folders, and returns its path.
    @discardableResult
    public func write(_ name: String, _ text: String) -> String {
        let full = path + "/" + name
        var position = full.startIndex
        while let slash = full[full.index(after: position)...].firstIndex(of: "/") {
            mkdir(String(full[..<slash]), 0o755)
            position = slash
        }
        if let file = fopen(full, "w") {
            fputs(text, file)
            fclose(file)
        }
        return full
    }

    private func remove(_ path: String) {
        guard path.hasPrefix("/tmp/andiron-test-") else { return }
        if let folder = opendir(path) {
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != ".", name != ".." { remove(path + "/" + name) }
            }
            closedir(folder)
            rmdir(path)
        } else {
            unlink(path)
        }
    }
}
