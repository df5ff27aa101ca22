/// What the log says of messages that the broker gave up.
internal import Diagnostics
internal import EventLoops

/// Tells of a queue's first dead letter at once, and of those that follow within a second by their number: a queue
/// whose messages all expire has one line a second.
@EventLoop
final class DeadLetterNotes {
    private let log: EventLog
    private var timer: LoopTimer?
    /// Those not told one by one, of queues that were told of in this second.
    private var followers: [String: Int] = [:]

    private static let interval = Duration.seconds(1)

    init(log: EventLog) {
        self.log = log
        timer = LoopTimer { [unowned self] in sumUp() }
    }

    /// A message is a dead letter of `queue` now; `reason` is its `DeadLetterReason`.
    func tell(_ sequence: UInt64, of queue: String, reason: String) {
        if let count = followers[queue] {
            followers[queue] = count + 1
            return
        }
        write(queue, "message \(sequence) of '\(queue)' went to its dead letters: \(reason)", count: 1)
        if followers.isEmpty { timer?.start(after: Self.interval) }
        followers[queue] = 0
    }

    /// Tells of those that were only counted.
    func sumUp() {
        let counts = followers
        followers = [:]
        for (queue, count) in counts.sorted(by: { $0.key < $1.key }) where count > 0 {
            write(queue, "\(count) more messages of '\(queue)' went to its dead letters", count: count)
            followers[queue] = 0
        }
        if !followers.isEmpty { timer?.start(after: Self.interval) }
    }

    private func write(_ queue: String, _ words: String, count: Int) {
        log.log(
            .warning, "\(words); `andiron queue dead-letters \(queue)` shows them",
            [("entity", .text(queue)), ("count", .integer(count))])
    }
}
