/// The way of a layer's bytes from the loop, where they arrive, to the thread that unpacks them.
internal import EventLoops
internal import Glibc

// SAFETY: all mutable state is behind `monitor`.
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

    private let monitor = Monitor()
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
    }

    /// Takes bytes from the loop; false when there is no room now, nil when nobody wants them any more.
    func offer(_ bytes: UnsafeRawBufferPointer) -> Bool? {
        monitor.locked {
            if isAbandoned { return nil }
            if waiting + bytes.count > Self.byteLimit, waiting > 0 {
                isPaused = true
                return false
            }
            chunks.append(Array(bytes))
            waiting += bytes.count
            monitor.signal()
            return true
        }
    }

    /// No more bytes come.
    func end() {
        monitor.locked {
            hasEnded = true
            monitor.signal()
        }
    }

    /// No more bytes come, and the layer is lost.
    func fail(_ error: ImageError) {
        monitor.locked {
            if failure == nil { failure = error }
            monitor.signal()
        }
    }

    /// The thread wants nothing more.
    func abandon() {
        let wasPaused = monitor.locked {
            isAbandoned = true
            chunks = []
            first = 0
            waiting = 0
            return isPaused
        }
        if wasPaused { resume() }
    }

    /// Whether the thread would wait now.
    var isEmpty: Bool { monitor.locked { first == chunks.count && !hasEnded && failure == nil } }

    /// Waits for the next bytes; on the thread.
    func next() -> Item {
        let (item, mustResume) = monitor.locked { () -> (Item, Bool) in
            while first == chunks.count, !hasEnded, failure == nil { monitor.wait() }
            if let failure { return (.failed(failure), false) }
            guard first < chunks.count else { return (.end, false) }
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
            return (.bytes(chunk), mustResume)
        }
        if mustResume { resume() }
        return item
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
