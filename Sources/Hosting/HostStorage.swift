/// The host's storage: its own folder, opened when something first needs it, and other services.
internal import Bindings
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import Glibc
internal import StorageAccounts
internal import Triggers

/// Opens the storage folder once, and gives it to whoever needs it.
@EventLoop
final class HostStorage {
    let root: String
    let slots: BlobSlots
    private let log: EventLog
    /// The host's own URL, known once it listens.
    var hostURL: @EventLoop () -> String = { "" }
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
        // The command line finds the host that has the folder by this file.
        try? writeFileAtomically(addressFile, Array((hostURL() + "\n").utf8))
        return opened
    }

    /// Where the command line looks for the URL of the host that has the folder.
    private var addressFile: String { BlobFolder(root: root).privateFolder + "/host" }

    func close() async {
        if account != nil { unlink(addressFile) }
        await account?.close()
        account = nil
    }
}
