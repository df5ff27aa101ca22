/// How many blobs are processed at once, over all functions, and whose turn it is.
public import EventLoops

/// Takes a turn when there is room.
@EventLoop
public protocol BlobSlotUser: AnyObject {
    /// Begins one piece of work and returns true, or false when there is none.
    func useSlot() -> Bool
}

/// A number of slots, given in turn to the functions that want them: a busy one holds up no other.
@EventLoop
public final class BlobSlots {
    /// host.json `extensions.blobs.maxDegreeOfParallelism`.
    public var limit: Int {
        didSet { fill() }
    }
    public private(set) var used = 0
    private var users: [any BlobSlotUser] = []
    private var next = 0
    private var isFilling = false

    public init(limit: Int) { self.limit = limit }

    public func add(_ user: any BlobSlotUser) { users.append(user) }

    public func remove(_ user: any BlobSlotUser) { users.removeAll { $0 === user } }

    /// Gives free slots away, one to each function in turn.
    public func fill() {
        guard !isFilling else { return }
        isFilling = true
        defer { isFilling = false }
        var idle = 0
        while used < limit, !users.isEmpty, idle < users.count {
            if next >= users.count { next = 0 }
            let user = users[next]
            next += 1
            // Counted first: work that ends at once gives its slot back inside the call.
            used += 1
            if user.useSlot() {
                idle = 0
            } else {
                used -= 1
                idle += 1
            }
        }
    }

    /// Gives a slot back.
    public func free() {
        used -= 1
        fill()
    }
}
