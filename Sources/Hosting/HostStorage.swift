/// The host's storage: its own folder, opened when something first needs it, and other services.
internal import Bindings
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import StorageAccounts
internal import Triggers

/// Opens the storage folder once, and gives it to whoever needs it.
@EventLoop
final class HostStorage {
    let root: String
    let slots: BlobSlots
    private let log: EventLog
    private(set) var account: FolderAccount?

    init(root: String, slotLimit: Int, log: EventLog) {
        self.root = root
        self.log = log
        slots = BlobSlots(limit: slotLimit)
    }

    /// The app's own account.
    ///
    /// - Throws: while the folder cannot be used, or another process has it.
    func open() throws(StorageError) -> FolderAccount {
        if let account { return account }
        let opened = try FolderAccount(root: root, log: log)
        account = opened
        return opened
    }

    func close() async {
        await account?.close()
        account = nil
    }
}
