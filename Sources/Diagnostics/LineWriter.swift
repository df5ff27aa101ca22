/// Writes lines to a descriptor from a thread of its own, so that a slow terminal or a full pipe never
/// stops the loop.
internal import Glibc
internal import Synchronization

// SAFETY: all mutable state is behind `mutex`.
/// A bounded line buffer with a writing thread, which sleeps while there is nothing to write.
public final class LineWriter: @unchecked Sendable {
    /// Bytes that may wait; lines past it are counted and dropped.
    public static let bufferLimit = 4 << 20
    /// How long the thread lets lines gather after a write: at most 200 wake-ups a second under load.
    private static let gatherMicroseconds: UInt32 = 5_000

    private let descriptor: Int32
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private var buffer: [UInt8] = []
    private var footer: [UInt8] = []
    private var footerLineCount = 0
    private var footerHasChanged = false
    private var skipped = 0
    private var isWaiting = false
    private var isClosing = false
    private var thread: pthread_t?

    /// Starts the thread. The descriptor stays the caller's.
    public init(descriptor: Int32) {
        self.descriptor = descriptor
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
        var thread = pthread_t()
        let me = Unmanaged.passRetained(self).toOpaque()  // SAFETY: released when the thread ends.
        let failed = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<LineWriter>.fromOpaque(argument).takeRetainedValue().run()  // SAFETY: see above.
                return nil
            }, me)
        if failed == 0 { self.thread = thread }
    }

    /// Queues whole lines.
    public func append(_ lines: [UInt8]) {
        pthread_mutex_lock(mutex)
        if buffer.count + lines.count > Self.bufferLimit {
            skipped += 1
        } else {
            buffer.append(contentsOf: lines)
        }
        if isWaiting { pthread_cond_signal(condition) }
        pthread_mutex_unlock(mutex)
    }

    /// Lines that stay below all others on a terminal, as a display of progress does; none removes them.
    ///
    /// - Parameters:
    ///   - lines: each shorter than the terminal is wide, or the next ones are drawn in the wrong place.
    ///   - remaining: lines that take the place of the old ones for good.
    public func setFooter(_ lines: [String], leaving remaining: [String] = []) {
        pthread_mutex_lock(mutex)
        for line in remaining { buffer += Array((line + "\n").utf8) }
        footer = lines.flatMap { Array(($0 + "\n").utf8) }
        footerLineCount = lines.count
        footerHasChanged = true
        if isWaiting { pthread_cond_signal(condition) }
        pthread_mutex_unlock(mutex)
    }

    /// Writes what is left and ends the thread.
    public func close() {
        pthread_mutex_lock(mutex)
        isClosing = true
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
        if let thread { pthread_join(thread, nil) }
        thread = nil
    }

    private func run() {
        var shownLineCount = 0
        while true {
            pthread_mutex_lock(mutex)
            while buffer.isEmpty && !footerHasChanged && !isClosing {
                isWaiting = true
                pthread_cond_wait(condition, mutex)
                isWaiting = false
            }
            let lines = buffer
            buffer = []
            let lost = skipped
            skipped = 0
            let closing = isClosing
            let (below, belowLineCount) = (footer, footerLineCount)
            footerHasChanged = false
            pthread_mutex_unlock(mutex)
            if shownLineCount == 0, below.isEmpty {
                writeAll(lines)
            } else {
                // Up to where the footer began, and everything from there on is written again.
                let erasure = shownLineCount > 0 ? Array("\u{1B}[\(shownLineCount)A\u{1B}[J".utf8) : []
                writeAll(erasure + lines + below)
                shownLineCount = belowLineCount
            }
            if lost > 0 { writeAll(Array("(\(lost) lines skipped: the output is slower than the host)\n".utf8)) }
            if closing { return }
            usleep(Self.gatherMicroseconds)
        }
    }

    private func writeAll(_ bytes: [UInt8]) {
        var offset = 0
        bytes.withUnsafeBytes { memory in
            while offset < memory.count {
                let count = write(descriptor, memory.baseAddress?.advanced(by: offset), memory.count - offset)
                if count > 0 {
                    offset += count
                } else if errno == EAGAIN {
                    var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    poll(&wait, 1, 1000)
                } else if errno != EINTR {
                    return
                }
            }
        }
    }
}
