/// The app's own storage account: a folder of containers, and a ledger of receipts and queues.
public import Diagnostics
internal import DurableStores
public import EventLoops
internal import FunctionApps
internal import ConfigurationFiles

/// One opened storage folder. Only one process has it open at a time.
@EventLoop
public final class FolderAccount: BlobStore {
    public let folder: BlobFolder
    public let ledger: AccountLedger
    public let accountName = StorageConnection.developmentAccount
    /// Where the blobs can be had over HTTP, when they can; without a slash at its end.
    public var blobEndpoint: String?
    private let log: EventLog
    private var watch: ContainerWatch?
    private var temporaryCount = 0
    /// Who wrote the latest blobs, so that a log shows what led to what.
    private var authors: [BlobAddress: String] = [:]

    /// Blobs whose author is remembered.
    static let authorLimit = 10_000

    /// Opens the folder, making it when it is not there. Blocking, for milliseconds.
    public init(root: String, log: EventLog) throws(StorageError) {
        self.log = log
        folder = BlobFolder(root: root)
        try folder.prepare()
        do throws(StoreError) {
            ledger = try AccountLedger(path: folder.privateFolder + "/account.db")
        } catch {
            throw StorageError.store(error)
        }
        folder.removeUploads()
    }

    public func close() async {
        watch = nil
        await ledger.store.close()
    }

    // MARK: Watching

    /// Tells `observer` of every blob in its container, those there already first.
    ///
    /// Its container is made when it is not there, so that a first `cp` into it works. One that cannot be made is what
    /// the watch reports.
    public func add(_ observer: any BlobObserver) throws(StorageError) {
        _ = folder.createContainer(observer.container)
        if watch == nil {
            do throws(SystemError) {
                watch = try ContainerWatch(folder: folder, log: log)
            } catch {
                throw StorageError.folder(path: folder.root, reason: error.message)
            }
        }
        watch?.add(observer)
    }

    public func remove(_ observer: any BlobObserver) { watch?.remove(observer) }

    /// Has a whole container looked at again.
    public func rescan(_ container: String) { watch?.rescan(container) }

    // MARK: Blobs

    public func url(of address: BlobAddress) -> String {
        guard let blobEndpoint else { return "file://" + folder.path(of: address) }
        return "\(blobEndpoint)/\(percentEncoded(path: address.description))"
    }

    public func read(_ address: BlobAddress, limit: Int) async throws(StorageError) -> Blob? {
        for _ in 0..<Self.readTries {
            switch await reading(address, limit: limit, wasClosed: true) {
            case .blob(let blob): return blob
            case .gone: return nil
            case .failed(let error): throw error
            case .beingWritten: await sleep(for: .milliseconds(20))
            }
        }
        throw StorageError.unreadable(blob: "\(address)", reason: "it is being written")
    }

    /// How often a blob that is being written is looked at, 20 ms apart.
    private static let readTries = 250

    /// One attempt at reading a blob.
    public func reading(_ address: BlobAddress, limit: Int, wasClosed: Bool) async -> BlobReading {
        await offload { [folder] in folder.read(address, limit: limit, wasClosed: wasClosed) }
    }

    public func write(
        _ address: BlobAddress, _ contents: [UInt8], _ headers: BlobHeaders
    ) async throws(StorageError) -> BlobProperties {
        try await write(address, contents, headers, condition: nil)
    }

    /// Writes a blob if `condition` holds.
    public func write(
        _ address: BlobAddress, _ contents: [UInt8], _ headers: BlobHeaders, condition: BlobCondition?
    ) async throws(StorageError) -> BlobProperties {
        temporaryCount += 1
        let name = "\(temporaryCount).tmp"
        return try await offload { [folder] in
            folder.write(address, contents, headers, temporaryName: name, condition: condition)
        }.get()
    }

    // MARK: Chains

    /// Notes that an invocation writes a blob.
    public func note(author invocation: String, of address: BlobAddress) {
        if authors.count >= Self.authorLimit { authors.removeAll() }
        authors[address] = invocation
    }

    /// The invocation that last wrote a blob, when it was one of this host.
    public func author(of address: BlobAddress) -> String? { authors[address] }
}

extension FolderAccount: QueueStore {
    public func put(_ messages: [NewMessage], queue: String) async throws(StorageError) {
        try await done(ledger.put(messages, queue: queue))
    }

    public func take(queue: String, count: Int, visibility: Double) async throws(StorageError) -> [QueueMessage] {
        try await done(ledger.take(queue: queue, count: count, visibility: visibility, byHost: true))
    }

    public func delete(_ message: QueueMessage, queue: String) async throws(StorageError) -> Bool {
        try await done(ledger.delete(queue: queue, guid: message.guid, popReceipt: message.popReceipt))
    }

    public func update(
        _ message: QueueMessage, queue: String, visibility: Double
    ) async throws(StorageError) -> QueueMessage? {
        let renewed = try await done(
            ledger.update(
                queue: queue, guid: message.guid, popReceipt: message.popReceipt, visibility: visibility, body: nil))
        return renewed.map { message.renewed(popReceipt: $0.popReceipt, visible: $0.visible) }
    }

    public func move(_ message: QueueMessage, from queue: String, to other: String) async throws(StorageError) {
        let moved = NewMessage(body: message.body)
        try await done(
            ledger.move(queue: queue, guid: message.guid, popReceipt: message.popReceipt, to: other, moved))
    }

    private func done<Value>(_ result: Eventual<Result<Value, StoreError>>) async throws(StorageError) -> Value {
        switch await result.value() {
        case .success(let value): return value
        case .failure(let error): throw StorageError.store(error)
        }
    }
}

/// A path with everything but unreserved characters and slashes percent-encoded.
public func percentEncoded(path: String) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var bytes: [UInt8] = []
    for byte in path.utf8 {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E, 0x2F: bytes.append(byte)
        default: bytes += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}
