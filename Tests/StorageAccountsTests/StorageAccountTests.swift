import DurableStores
import Diagnostics
import EventLoops
import Glibc
import HostTestSupport
import StorageAccounts
import Testing

@Suite struct SharedKeyTests {
    /// The example of «Authorize with Shared Key».
    @Test func `the text to sign is the service's`() {
        let request = SignedRequest(
            method: "GET", path: "/mycontainer",
            query: [("restype", "container"), ("comp", "metadata"), ("timeout", "20")],
            headers: [
                ("x-ms-version", "2015-02-21"), ("x-ms-date", " Fri, 26 Jun 2015 23:39:12 GMT "), ("Date", "ignored"),
            ],
            byteCount: 0)
        #expect(
            request.stringToSign(account: "myaccount")
                == "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        )
    }

    @Test(arguments: [
        ("Fri, 26 Jun 2015 23:39:12 GMT", 1_435_361_952.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ])
    func `dates go both ways`(text: String, seconds: Double) {
        #expect(parseHTTPDate(text) == seconds)
        #expect(httpDate(seconds) == text)
    }

    @Test(arguments: ["", "yesterday", "Fri, 26 Foo 2015 23:39:12 GMT", "Fri, 26 Jun 2015 25:39:12 GMT"])
    func `what is no date is none`(text: String) { #expect(parseHTTPDate(text) == nil) }
}

@Suite struct BlobFolderTests {
    private func made() throws -> (TemporaryFolder, BlobFolder) {
        let folder = TemporaryFolder()
        let blobs = BlobFolder(root: folder.path)
        try blobs.prepare()
        return (folder, blobs)
    }

    @Test func `contents and properties come back together`() throws {
        let (folder, blobs) = try made()
        defer { withExtendedLifetime(folder) {} }
        let address = BlobAddress(container: "data", name: "a/b c/é")
        let headers = BlobHeaders(
            contentType: "text/plain", metadata: [("camera", "front")], other: [("cache-control", "no-cache")])
        let written = try blobs.write(address, [1, 2, 3], headers, temporaryName: "t").get()
        guard case .blob(let blob) = blobs.read(address, limit: 3) else {
            Issue.record("not read")
            return
        }
        #expect(blob.contents == [1, 2, 3])
        #expect(blob.properties.etag == written.etag)
        #expect(blob.properties.contentType == "text/plain")
        #expect(blob.properties.metadata.map { "\($0.name)=\($0.value)" } == ["camera=front"])
        #expect(blob.properties.headers.map { "\($0.name)=\($0.value)" } == ["cache-control=no-cache"])
        guard case .failed(.tooLarge) = blobs.read(address, limit: 2) else {
            Issue.record("read past its limit")
            return
        }
    }

    @Test func `conditions are checked and folders that are left empty go`() throws {
        let (folder, blobs) = try made()
        let address = BlobAddress(container: "data", name: "x/y/z")
        let first = try blobs.write(address, [1], BlobHeaders(), temporaryName: "t", condition: .differs("*")).get()
        let again = blobs.write(address, [2], BlobHeaders(), temporaryName: "t", condition: .differs("*"))
        #expect(throws: StorageError.conditionNotMet(blob: "data/x/y/z")) { try again.get() }
        #expect(throws: StorageError.self) { try blobs.delete(address, condition: .matches("0x0")).get() }
        #expect(try blobs.delete(address, condition: .matches(first.etag)).get())
        #expect(try !blobs.delete(address).get())
        #expect(access(folder.path + "/data/x", F_OK) != 0)
        #expect(access(folder.path + "/data", F_OK) == 0)
    }

    @Test func `a file that somebody writes is not read`() throws {
        let (folder, blobs) = try made()
        folder.write("data/open", "half")
        let address = BlobAddress(container: "data", name: "open")
        let writer = open(folder.path + "/data/open", O_WRONLY)
        guard case .beingWritten = blobs.read(address, limit: 100) else {
            Issue.record("read while it was open for writing")
            return
        }
        close(writer)
        guard case .blob = blobs.read(address, limit: 100) else {
            Issue.record("not read after its writer closed it")
            return
        }
    }

    @Test func `every change of contents is another version`() throws {
        let (folder, blobs) = try made()
        let address = BlobAddress(container: "data", name: "x")
        var etags: Set<String> = []
        for number in 0..<50 {
            folder.write("data/x", "\(number % 2)")
            utimensat(
                AT_FDCWD, folder.path + "/data/x",
                [timespec(tv_sec: 0, tv_nsec: number), timespec(tv_sec: 0, tv_nsec: number)], 0)
            etags.insert(try #require(try blobs.properties(address).get()).etag)
        }
        #expect(etags.count == 50)
    }

    @Test func `names come in the order of their bytes, below the prefix only`() throws {
        let (folder, blobs) = try made()
        for name in ["b", "a/1", "a/b/2", "a-c", "é", "B"] { folder.write("data/\(name)", "x") }
        #expect(blobs.names(container: "data", prefix: "") == ["B", "a-c", "a/1", "a/b/2", "b", "é"])
        #expect(blobs.names(container: "data", prefix: "a/") == ["a/1", "a/b/2"])
        #expect(blobs.names(container: "none", prefix: "") == [])
    }
}

@Suite(.serialized) struct AccountLedgerTests {
    @Test func `messages are taken by one, hidden, and given back`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let ledger = try AccountLedger(path: folder.path + "/account.db")
            try await ledger.put([NewMessage(body: [1]), NewMessage(body: [2])], queue: "q").value().get()
            let first = try await ledger.take(queue: "q", count: 1, visibility: 60).value().get()
            #expect(first.map(\.body) == [[1]])
            let second = try await ledger.take(queue: "q", count: 5, visibility: 60).value().get()
            #expect(second.map(\.body) == [[2]])
            #expect(try await ledger.take(queue: "q", count: 5, visibility: 60).value().get().isEmpty)
            let given = try await ledger.update(
                queue: "q", guid: first[0].guid, popReceipt: first[0].popReceipt, visibility: 0, body: [3]
            ).value().get()
            #expect(given != nil)
            let again = try await ledger.take(queue: "q", count: 5, visibility: 60).value().get()
            #expect(again.map(\.body) == [[3]])
            #expect(again.map(\.dequeueCount) == [2])
            #expect(
                try await !ledger.delete(queue: "q", guid: first[0].guid, popReceipt: first[0].popReceipt).value().get()
            )
            #expect(
                try await ledger.delete(queue: "q", guid: again[0].guid, popReceipt: again[0].popReceipt).value().get())
            try await ledger.move(
                queue: "q", guid: second[0].guid, popReceipt: second[0].popReceipt, to: "q-poison",
                NewMessage(body: [2])
            ).value().get()
            #expect(
                try await ledger.queues().value().get().map { "\($0.name) \($0.messageCount)" } == [
                    "q 0", "q-poison 1",
                ])
            await ledger.store.close()
        }
    }

    @Test func `expired messages are not seen`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let ledger = try AccountLedger(path: folder.path + "/account.db")
            try await ledger.put([NewMessage(body: [1], timeToLive: 0)], queue: "q").value().get()
            #expect(try await ledger.take(queue: "q", count: 5, visibility: 60).value().get().isEmpty)
            #expect(try await ledger.removeExpired().value().get() == 1)
            await ledger.store.close()
        }
    }

    @Test func `receipts tell what is left to do`() async throws {
        let folder = TemporaryFolder()
        try await onTheLoop {
            let ledger = try AccountLedger(path: folder.path + "/account.db")
            let blobs = ["a", "b", "c"].map { FoundBlob(name: $0, etag: "1") }
            let key = { (name: String) in ReceiptKey(function: "F", container: "c", name: name, etag: "1") }
            try await ledger.record(key("a"), .completed, attempts: 1).value().get()
            try await ledger.record(key("b"), .attempted, attempts: 2).value().get()
            let left = try await ledger.unprocessed(function: "F", container: "c", blobs).value().get()
            #expect(left.map(\.name) == ["b", "c"])
            #expect(try await ledger.receipt(key("b")).value().get()?.attempts == 2)
            #expect(try await ledger.unprocessed(function: "G", container: "c", blobs).value().get().count == 3)
            #expect(try await ledger.forget(function: nil, container: "c", name: "a").value().get() == 1)
            #expect(
                try await ledger.receipts(function: nil, prefix: "c/", state: nil, limit: 10).value().get().count == 1)
            await ledger.store.close()
        }
    }
}
