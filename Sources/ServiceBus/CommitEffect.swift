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
    ///
    /// One switch in the other, for a switch over both at once copies both.
    @inline(__always)
    mutating func take(in next: CommitEffect) -> Bool {
        switch next {
        case .enqueued(let queue, let more):
            guard case .enqueued(let own, let range) = self, own === queue, let both = range.followed(by: more)
            else { return false }
            self = .enqueued(queue, both)
        case .left(let queue, let more):
            guard case .left(let own, let range) = self, own === queue, let both = range.followed(by: more)
            else { return false }
            self = .left(queue, both)
        case .accepted(let link, let more):
            guard case .accepted(let own, let range) = self, own === link, let both = range.followed(by: more)
            else { return false }
            self = .accepted(link, both)
        case .completed(let link, let more):
            guard case .completed(let own, let range) = self, own === link, let both = range.followed(by: more)
            else { return false }
            self = .completed(link, both)
        case .removedForDelivery, .settled, .call: return false
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

extension ClosedRange where Bound: FixedWidthInteger {
    /// Both as one, when `next` begins where this ends.
    @inline(__always)
    fileprivate func followed(by next: ClosedRange) -> ClosedRange? {
        guard upperBound < next.lowerBound, upperBound + 1 == next.lowerBound else { return nil }
        return lowerBound...next.upperBound
    }
}
