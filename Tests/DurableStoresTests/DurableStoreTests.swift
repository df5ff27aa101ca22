import DurableStores
import EventLoops
import Glibc
import HostTestSupport
import Testing

private let schema = StoreSchema(kind: 0x7465_7374, steps: ["CREATE TABLE entry (key TEXT PRIMARY KEY, value INTEGER)"])

@Suite(.serialized) struct DurableStoreTests {
    @Test func `writes of one turn share a transaction and are there after opening again`() async throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store.db"
        let commits = try await onTheLoop {
            let store = try DurableStore(path: path, schema: schema)
            let writes = (0..<100).map { number in
                store.write { (connection) throws(StoreError) in
                    try connection.run("INSERT INTO entry VALUES (?, ?)", .text("k\(number)"), .integer(number))
                }
            }
            for write in writes { #expect(await write.value() == .success(1)) }
            let commits = store.status.commits
            await store.close()
            return commits
        }
        #expect(commits == 1)
        let count = try await onTheLoop {
            let store = try DurableStore(path: path, schema: schema)
            let count = try await sum(store).get()
            await store.close()
            return count
        }
        #expect(count == 4950)
    }

    @Test func `a write that fails takes nothing else with it`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let store = try DurableStore(path: folder.path + "/store.db", schema: schema)
            let first = insert(store, "a", 1)
            let second = insert(store, "a", 2)
            let third = insert(store, "b", 3)
            #expect(await first.value() == .success(1))
            guard case .failure(.failed(_, let reason)) = await second.value() else {
                Issue.record("the duplicate was taken")
                return
            }
            #expect(reason.contains("UNIQUE"))
            #expect(await third.value() == .success(1))
            #expect(await sum(store) == .success(4))
            await store.close()
        }
    }

    @Test func `a second opener is told who has the store`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let path = folder.path + "/store.db"
            let store = try DurableStore(path: path, schema: schema)
            do throws(StoreError) {
                _ = try DurableStore(path: path, schema: schema)
                Issue.record("opened twice")
            } catch {
                #expect(error.code == "AN7002")
                #expect(error.message.contains("process \(getpid())"))
            }
            await store.close()
        }
    }

    @Test(arguments: [0, 1, 2])
    func `a damaged file is named and left alone`(kind: Int) async throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store.db"
        try await onTheLoop {
            let store = try DurableStore(path: path, schema: schema)
            for number in 0..<2000 { _ = insert(store, "key number \(number)", number) }
            _ = await insert(store, "last", 0).value()
            await store.close()
        }
        let descriptor = open(path, O_RDWR)
        switch kind {
        case 0: ftruncate(descriptor, 5000)
        case 1:
            ftruncate(descriptor, 0)
            write(
                descriptor,
                "this is a letter, not a database; it has enough characters to be taken for a header, though not by much",
                100)
        default:
            let garbage = [UInt8](repeating: 0xA5, count: 4096)
            pwrite(descriptor, garbage, 4096, 8192)
        }
        close(descriptor)
        try await onTheLoop {
            do throws(StoreError) {
                _ = try DurableStore(path: path, schema: schema)
                Issue.record("opened a damaged file")
            } catch {
                #expect(error.code == "AN7003", "\(error)")
                #expect(error.message.contains(path))
            }
        }
    }

    @Test func `a full disk refuses what has no room, and later writes work`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let store = try DurableStore(path: folder.path + "/store.db", schema: schema, pageLimit: 20)
            let large = String(repeating: "x", count: 100_000)
            let refused = insert(store, large, 1)
            #expect(await refused.value() == .failure(.full(path: store.path)))
            #expect(await insert(store, "small", 1).value() == .success(1))
            #expect(await sum(store) == .success(1))
            await store.close()
        }
    }

    @Test func `schemas are upgraded step by step, and newer files are refused`() async throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/store.db"
        let newer = StoreSchema(
            kind: schema.kind, steps: schema.steps + ["ALTER TABLE entry ADD COLUMN more INTEGER DEFAULT 7"])
        try await onTheLoop {
            let store = try DurableStore(path: path, schema: schema)
            _ = await insert(store, "a", 1).value()
            await store.close()
            let upgraded = try DurableStore(path: path, schema: newer)
            let more = await upgraded.read { (connection) throws(StoreError) in
                var found = 0
                try connection.query("SELECT more FROM entry") { (row) throws(StoreError) in
                    found = row.integer(0)
                    return true
                }
                return found
            }.value()
            #expect(more == .success(7))
            await upgraded.close()
            do throws(StoreError) {
                _ = try DurableStore(path: path, schema: schema)
                Issue.record("opened a newer file")
            } catch {
                #expect(error == .tooNew(path: path, version: 2, known: 1))
            }
        }
    }

    @Test func `a closed store refuses writes`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let store = try DurableStore(path: folder.path + "/store.db", schema: schema)
            await store.close()
            #expect(await insert(store, "a", 1).value() == .failure(.closed(path: store.path)))
        }
    }
}

@EventLoop
private func insert(_ store: DurableStore, _ key: String, _ value: Int) -> Eventual<Result<Int, StoreError>> {
    store.write { (connection) throws(StoreError) in
        try connection.run("INSERT INTO entry VALUES (?, ?)", .text(key), .integer(value))
    }
}

@EventLoop
private func sum(_ store: DurableStore) async -> Result<Int, StoreError> {
    await store.read { (connection) throws(StoreError) in
        var total = 0
        try connection.query("SELECT value FROM entry") { (row) throws(StoreError) in
            total += row.integer(0)
            return true
        }
        return total
    }.value()
}

extension DurableStoreTests {
    @Test func `many small writes take few transactions`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let store = try DurableStore(path: folder.path + "/store.db", schema: schema)
            let start = monotonicNanoseconds()
            var left = 0
            let done = Gate()
            for number in 0..<50_000 {
                left += 1
                insert(store, "key \(number)", number).whenDone { _ in
                    left -= 1
                    if left == 0 { done.open() }
                }
            }
            await done.wait()
            let seconds = Double(monotonicNanoseconds() - start) / 1e9
            print("50000 writes in \(seconds) s, \(Int(50_000 / seconds)) a second, \(store.status.commits) commits")
            #expect(store.status.commits <= 10)
            #expect(store.status.writes == 50_000)
            await store.close()
        }
    }
}
