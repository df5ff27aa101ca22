/// Results in memory, the least recently used leaving first.
internal import EventLoops

/// A bounded cache by digest. A result may have several keys: inputs that are written differently and mean
/// the same.
@EventLoop
final class MemoryCache {
    private final class Entry {
        let result: CachedResult
        let label: CacheKeyPrefix
        let expires: UInt64
        var keys: [SHA256Digest]
        unowned(unsafe) var newer: Entry?
        var older: Entry?

        init(_ result: CachedResult, _ label: CacheKeyPrefix, expires: UInt64, key: SHA256Digest) {
            self.result = result
            self.label = label
            self.expires = expires
            keys = [key]
        }
    }

    private var entries: [SHA256Digest: Entry] = [:]
    private var newest: Entry?
    private unowned(unsafe) var oldest: Entry?
    private let entryLimit: Int
    private let byteLimit: Int
    /// Results held.
    private(set) var count = 0
    /// Their bytes.
    private(set) var byteCount = 0
    /// Results that had to leave for room.
    private(set) var evictions = 0

    /// Spellings remembered per result.
    private static let keyLimit = 8

    init(entryLimit: Int, byteLimit: Int) {
        self.entryLimit = entryLimit
        self.byteLimit = byteLimit
    }

    /// Whether anything is kept at all.
    var isOff: Bool { entryLimit == 0 }

    /// The results, the newest first, with their keys.
    var all: [(key: SHA256Digest, label: CacheKeyPrefix, result: CachedResult)] {
        var list: [(SHA256Digest, CacheKeyPrefix, CachedResult)] = []
        var next = newest
        while let entry = next {
            if let key = entry.keys.first { list.append((key, entry.label, entry.result)) }
            next = entry.older
        }
        return list
    }

    func remove(_ key: SHA256Digest) {
        if let entry = entries[key] { remove(entry) }
    }

    /// The result under `key`, unless it has expired at `now`.
    func result(for key: SHA256Digest, now: UInt64) -> CachedResult? {
        guard let entry = entries[key] else { return nil }
        if entry.expires <= now {
            remove(entry)
            return nil
        }
        if newest !== entry {
            unlink(entry)
            pushNewest(entry)
        }
        return entry.result
    }

    /// - Parameter label: what the key's name begins with.
    func store(_ result: CachedResult, key: SHA256Digest, label: CacheKeyPrefix, expires: UInt64) {
        guard !isOff else { return }
        if let old = entries[key] { remove(old) }
        let entry = Entry(result, label, expires: expires, key: key)
        entries[key] = entry
        pushNewest(entry)
        count += 1
        byteCount += result.byteCount
        while count > entryLimit || byteCount > byteLimit, let last = oldest {
            remove(last)
            evictions += 1
        }
    }

    /// Lets `alias` lead to the result of `key` too.
    func add(alias: SHA256Digest, to key: SHA256Digest) {
        guard let entry = entries[key], alias != key, entry.keys.count < Self.keyLimit, entries[alias] == nil else {
            return
        }
        entry.keys.append(alias)
        entries[alias] = entry
    }

    func removeAll() {
        while let last = oldest { remove(last) }
    }

    private func remove(_ entry: Entry) {
        unlink(entry)
        for key in entry.keys { entries[key] = nil }
        count -= 1
        byteCount -= entry.result.byteCount
    }

    private func pushNewest(_ entry: Entry) {
        entry.older = newest
        newest?.newer = entry
        newest = entry
        if oldest == nil { oldest = entry }
    }

    private func unlink(_ entry: Entry) {
        let newer = entry.newer
        let older = entry.older
        if let newer { newer.older = older } else { newest = older }
        if let older { older.newer = newer } else { oldest = newer }
        entry.newer = nil
        entry.older = nil
    }
}
