/// What a blob trigger needs of an account: word of new blobs, their contents, and a place for receipts.
internal import DurableStores
public import EventLoops

/// An account that blob triggers can listen to: the app's folder, which tells at once, or another service, which is
/// asked again and again.
@EventLoop
public protocol BlobSource: BlobStore {
    /// Tells `observer` of every blob in its container, those there already first.
    func add(_ observer: any BlobObserver) throws(StorageError)
    func remove(_ observer: any BlobObserver)
    /// Has a whole container looked at again.
    func rescan(_ container: String)
    /// One attempt at reading a blob.
    func reading(_ address: BlobAddress, limit: Int, wasClosed: Bool) async -> BlobReading
    /// Properties alone; nil when there is no such blob.
    func properties(of address: BlobAddress) async -> BlobProperties?
    /// The invocation of this host that last wrote a blob.
    func author(of address: BlobAddress) -> String?

    /// What is known of one version; nil when nothing is.
    func receipt(_ key: ReceiptKey) -> Eventual<Result<ReceiptStanding?, StorageError>>
    /// Of the blobs found, those that the function has still to process.
    func unprocessed(_ function: String, _ container: String, _ blobs: [FoundBlob]) -> Eventual<
        Result<[FoundBlob], StorageError>
    >
    /// Keeps what became of one version, and the poison message when there is one.
    func record(
        _ key: ReceiptKey, _ state: ReceiptState, attempts: Int, poison: (queue: String, message: NewMessage)?
    ) -> Eventual<Result<Void, StorageError>>
    /// Marks blobs as left alone.
    func skip(_ function: String, _ container: String, _ blobs: [FoundBlob]) async
    /// Whether a function has scanned a container to its end before.
    func hasStarted(_ function: String, _ container: String) async -> Bool?
    func setStarted(_ function: String, _ container: String) async
}

/// How far a function has come with a version of a blob.
public struct ReceiptStanding: Sendable, Equatable {
    public let state: ReceiptState
    public let attempts: Int

    public init(state: ReceiptState, attempts: Int) {
        self.state = state
        self.attempts = attempts
    }
}

extension FolderAccount: BlobSource {
    public func properties(of address: BlobAddress) async -> BlobProperties? {
        let found = await offload { [folder] in folder.properties(address) }
        return if case .success(let properties) = found { properties } else { nil }
    }

    private func translated<Value>(_ result: Eventual<Result<Value, StoreError>>) -> Eventual<
        Result<Value, StorageError>
    > {
        result.map { $0.mapError { StorageError.store($0) } }
    }

    public func receipt(_ key: ReceiptKey) -> Eventual<Result<ReceiptStanding?, StorageError>> {
        translated(ledger.receipt(key)).map { result in
            result.map { found in found.map { ReceiptStanding(state: $0.state, attempts: $0.attempts) } }
        }
    }

    public func unprocessed(
        _ function: String, _ container: String, _ blobs: [FoundBlob]
    ) -> Eventual<Result<[FoundBlob], StorageError>> {
        translated(ledger.unprocessed(function: function, container: container, blobs))
    }

    public func record(
        _ key: ReceiptKey, _ state: ReceiptState, attempts: Int, poison: (queue: String, message: NewMessage)?
    ) -> Eventual<Result<Void, StorageError>> {
        translated(ledger.record(key, state, attempts: attempts, poison: poison))
    }

    public func skip(_ function: String, _ container: String, _ blobs: [FoundBlob]) async {
        _ = await ledger.skip(function: function, container: container, blobs).value()
    }

    public func hasStarted(_ function: String, _ container: String) async -> Bool? {
        try? await ledger.hasStarted(function: function, container: container).value().get()
    }

    public func setStarted(_ function: String, _ container: String) async {
        _ = await ledger.setStarted(function: function, container: container).value()
    }
}
