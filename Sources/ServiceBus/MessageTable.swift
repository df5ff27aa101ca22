/// The compact index of a queue's messages by sequence number: 32 bytes each, in pages that go when empty.
internal import AMQP

/// What memory keeps of one message.
struct MessageEntry {
    /// What is not told by the state.
    struct Flags: OptionSet {
        let rawValue: UInt8
        /// Not yet on disk: nobody may see it.
        static let uncommitted = Flags(rawValue: 1)
        /// With a receiver.
        static let locked = Flags(rawValue: 2)
        /// Being removed; that is not yet on disk.
        static let leaving = Flags(rawValue: 4)
        /// Was delivered before.
        static let delivered = Flags(rawValue: 8)
        /// The slot is in use.
        static let present = Flags(rawValue: 16)
    }

    /// The record's bytes while they are kept in memory.
    var record: [UInt8] = []
    var place = LogPlace.none
    var deliveryCount: UInt16 = 0
    var state = MessageState.active
    var flags: Flags = []
    var expiresAt: Int64

    var isReady: Bool { state == .active && flags.isDisjoint(with: [.uncommitted, .locked, .leaving]) }
}

/// Entries by number; numbers mostly rise.
struct MessageTable {
    private static let pageCount = 256

    private final class Page {
        var entries = Array(repeating: MessageEntry(expiresAt: 0), count: MessageTable.pageCount)
        var used = 0
    }

    private var pages = NumberMap<Page>()
    private(set) var count = 0

    subscript(sequence: UInt64) -> MessageEntry? {
        guard let entry = pages[sequence / UInt64(Self.pageCount)]?.entries[Int(sequence % UInt64(Self.pageCount))],
            entry.flags.contains(.present)
        else { return nil }
        return entry
    }

    /// Puts an entry in, over one that is there.
    mutating func insert(_ sequence: UInt64, _ entry: MessageEntry) {
        let number = sequence / UInt64(Self.pageCount)
        let index = Int(sequence % UInt64(Self.pageCount))
        let page: Page
        if let existing = pages[number] {
            page = existing
        } else {
            page = Page()
            pages[number] = page
        }
        if !page.entries[index].flags.contains(.present) {
            page.used += 1
            count += 1
        }
        page.entries[index] = entry
        page.entries[index].flags.insert(.present)
    }

    /// Takes an entry out.
    @discardableResult
    mutating func remove(_ sequence: UInt64) -> MessageEntry? {
        let number = sequence / UInt64(Self.pageCount)
        let index = Int(sequence % UInt64(Self.pageCount))
        guard let page = pages[number], page.entries[index].flags.contains(.present) else { return nil }
        let entry = page.entries[index]
        page.entries[index] = MessageEntry(expiresAt: 0)
        page.used -= 1
        count -= 1
        if page.used == 0 { pages[number] = nil }
        return entry
    }

    /// Changes an entry in place; nothing happens when there is none.
    @inline(__always)
    func update(_ sequence: UInt64, _ change: (inout MessageEntry) -> Void) {
        guard let page = pages[sequence / UInt64(Self.pageCount)] else { return }
        let index = Int(sequence % UInt64(Self.pageCount))
        guard page.entries[index].flags.contains(.present) else { return }
        change(&page.entries[index])
    }

    /// Calls `body` with the numbers from `start` in order until it says to stop.
    func forEach(from start: UInt64 = 0, _ body: (UInt64, MessageEntry) -> Bool) {
        let first = start / UInt64(Self.pageCount)
        for number in pages.lazy.map(\.number).filter({ $0 >= first }).sorted() {
            guard let page = pages[number] else { continue }
            for (index, entry) in page.entries.enumerated() {
                let sequence = number * UInt64(Self.pageCount) + UInt64(index)
                guard entry.flags.contains(.present), sequence >= start else { continue }
                guard body(sequence, entry) else { return }
            }
        }
    }
}
