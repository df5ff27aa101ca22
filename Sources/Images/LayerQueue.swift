/// The way of a layer's bytes from the loop, where they arrive, to the thread that unpacks them.
internal import Glibc

// SAFETY: all mutable state is behind `mutex`.
/// A bounded queue with one end on the loop and one on a thread.
final class LayerQueue: @unchecked Sendable {
    /// Bytes that may wait before the connection is paused.
    static let byteLimit = 4 << 20
    /// Bytes under which a paused connection goes on.
    static let resumeByteCount = 1 << 20

    /// What the thread gets.
    enum Item {
        case bytes([UInt8])
        case end
        case failed(ImageError)
    }

    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private var chunks: [[UInt8]] = []
    private var first = 0
    private var waiting = 0
    private var isPaused = false
    private var hasEnded = false
    private var isAbandoned = false
    private var failure: ImageError?
    private let resume: @Sendable () -> Void

    /// - Parameter resume: called from the thread when a refused offer may be made again.
    init(resume: @escaping @Sendable () -> Void) {
        self.resume = resume
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(condition)
        mutex.deallocate()
        condition.deallocate()
    }

    private func locked<T>(_ body: () -> T) -> T {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }

    /// Takes bytes from the loop; false when there is no room now, nil when nobody wants them any more.
    func offer(_ bytes: UnsafeRawBufferPointer) -> Bool? {
        locked {
            if isAbandoned { return nil }
            if waiting + bytes.count > Self.byteLimit, waiting > 0 {
                isPaused = true
                return false
            }
            chunks.append(Array(bytes))
            waiting += bytes.count
            pthread_cond_signal(condition)
            return true
        }
    }

    /// No more bytes come.
    func end() {
        locked {
            hasEnded = true
            pthread_cond_signal(condition)
        }
    }

    /// No more bytes come, and the layer is lost.
    func fail(_ error: ImageError) {
        locked {
            if failure == nil { failure = error }
            pthread_cond_signal(condition)
        }
    }

    /// The thread wants nothing more.
    func abandon() {
        let wasPaused = locked {
            isAbandoned = true
            chunks = []
            first = 0
            waiting = 0
            return isPaused
        }
        if wasPaused { resume() }
    }

    /// Whether the thread would wait now.
    var isEmpty: Bool { locked { first == chunks.count && !hasEnded && failure == nil } }

    /// Waits for the next bytes; on the thread.
    func next() -> Item {
        pthread_mutex_lock(mutex)
        while first == chunks.count, !hasEnded, failure == nil { pthread_cond_wait(condition, mutex) }
        if let failure {
            pthread_mutex_unlock(mutex)
            return .failed(failure)
        }
        guard first < chunks.count else {
            pthread_mutex_unlock(mutex)
            return .end
        }
        let chunk = chunks[first]
        chunks[first] = []
        first += 1
        if first == chunks.count {
            chunks.removeAll(keepingCapacity: true)
            first = 0
        }
        waiting -= chunk.count
        let mustResume = isPaused && waiting < Self.resumeByteCount
        if mustResume { isPaused = false }
        pthread_mutex_unlock(mutex)
        if mustResume { resume() }
        return .bytes(chunk)
    }
}

/// Starts a thread for work that lasts longer than the pool's should.
func startThread(_ work: @escaping @Sendable () -> Void) -> Bool {
    final class Box {
        let work: @Sendable () -> Void
        init(_ work: @escaping @Sendable () -> Void) { self.work = work }
    }
    var thread = pthread_t()
    let box = Unmanaged.passRetained(Box(work))  // SAFETY: released when the thread begins, or did not.
    let failed = pthread_create(
        &thread, nil,
        { argument in
            guard let argument else { return nil }
            Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().work()  // SAFETY: see above.
            return nil
        }, box.toOpaque())
    if failed == 0 {
        pthread_detach(thread)
        return true
    }
    box.release()
    return false
}
