/// Numbers of messages in order, for one that mostly appends at the end and takes from the front.
internal import DequeModule
internal import HeapModule

/// Sequence numbers, smallest first. May hold numbers that are no longer wanted; takers look.
struct ReadyList {
    private var fresh: Deque<UInt64> = []
    /// What came back, or came late.
    private var returned = Heap<UInt64>()

    var isEmpty: Bool { fresh.isEmpty && returned.isEmpty }
    var count: Int { fresh.count + returned.count }

    mutating func push(_ sequence: UInt64) {
        if let last = fresh.last, sequence <= last { returned.insert(sequence) } else { fresh.append(sequence) }
    }

    mutating func pop() -> UInt64? {
        guard let back = returned.min else { return fresh.popFirst() }
        guard let front = fresh.first, front < back else { return returned.popMin() }
        return fresh.popFirst()
    }
}

/// A time and what is due then.
struct Due: Comparable {
    let at: Int64
    let sequence: UInt64

    static func < (left: Self, right: Self) -> Bool { left.at < right.at }
}

/// Times in order; entries that no longer hold are dropped when they outnumber what they are about.
struct DueList {
    private var heap = Heap<Due>()

    var next: Int64? { heap.min?.at }

    /// Adds a time; `isWanted` tells which of the old ones still hold when there are far more than `wanted`.
    mutating func add(_ due: Due, wanted: Int, isWanted: (Due) -> Bool) {
        heap.insert(due)
        if heap.count > 2 * wanted + 4096 { heap = Heap(heap.unordered.filter(isWanted)) }
    }

    mutating func pop(until now: Int64) -> UInt64? {
        guard let first = heap.min, first.at <= now else { return nil }
        return heap.popMin()?.sequence
    }
}
