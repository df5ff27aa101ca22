/// What waits for a commit.
internal import AMQP
internal import EventLoops

/// What happens when a change is on disk, or could not be put there.
enum CommitEffect {
    case enqueued(MessageQueue, ClosedRange<UInt64>)
    case left(MessageQueue, ClosedRange<UInt64>)
    case removedForDelivery(
        MessageQueue, UInt64, MessageRecord, MessageRecord.Delivery, any MessageReceiver)
    /// A sender's messages are safe.
    case accepted(ProducerLink, ClosedRange<UInt32>)
    /// Messages a receiver completed are gone.
    case completed(ConsumerLink, ClosedRange<UInt32>)
    /// A receiver's word about a message is safe.
    case settled(ConsumerLink, UInt32, DeliveryState)
    /// Anything else; told what failed, if something did.
    case call(@EventLoop (SystemError?) -> Void)
}

extension CommitEffect {
    /// Takes in one that is of the same kind and begins where this ends; false for any other.
    mutating func take(in next: CommitEffect) -> Bool {
        switch (self, next) {
        case (.enqueued(let queue, let range), .enqueued(let other, let more))
        where queue === other && range.upperBound + 1 == more.lowerBound:
            self = .enqueued(queue, range.lowerBound...more.upperBound)
        case (.left(let queue, let range), .left(let other, let more))
        where queue === other && range.upperBound + 1 == more.lowerBound:
            self = .left(queue, range.lowerBound...more.upperBound)
        case (.accepted(let link, let range), .accepted(let other, let more))
        where link === other && range.upperBound < more.lowerBound && range.upperBound + 1 == more.lowerBound:
            self = .accepted(link, range.lowerBound...more.upperBound)
        case (.completed(let link, let range), .completed(let other, let more))
        where link === other && range.upperBound < more.lowerBound && range.upperBound + 1 == more.lowerBound:
            self = .completed(link, range.lowerBound...more.upperBound)
        default: return false
        }
        return true
    }

    /// Tells whom it concerns that it is on disk, or what failed.
    @EventLoop
    @inline(__always)
    func run(_ failure: SystemError?) {
        let isOnDisk = failure == nil
        switch self {
        case .enqueued(let queue, let range):
            inOrder(range, isOnDisk) { queue.wasEnqueued($0, isOnDisk) }
        case .left(let queue, let range): inOrder(range, isOnDisk) { queue.hasLeft($0, isOnDisk) }
        case .removedForDelivery(let queue, let sequence, let record, let delivery, let receiver):
            queue.wasRemovedForDelivery(sequence, record, delivery, receiver, isOnDisk)
        case .accepted(let link, let range):
            for delivery in range { link.finish(delivery, isOnDisk ? .accepted : .rejected(.storeFull)) }
        case .completed(let link, let range):
            for delivery in range { link.confirm(delivery, isOnDisk ? .accepted : .rejected(.storeFull)) }
        case .settled(let link, let delivery, let state):
            link.confirm(delivery, isOnDisk ? state : .rejected(.storeFull))
        case .call(let body): body(failure)
        }
    }

    /// From first to last, or from last to first when it is undone.
    @inline(__always)
    @EventLoop
    private func inOrder(_ range: ClosedRange<UInt64>, _ isOnDisk: Bool, _ body: (UInt64) -> Void) {
        if isOnDisk {
            for sequence in range { body(sequence) }
        } else {
            for sequence in range.reversed() { body(sequence) }
        }
    }
}
