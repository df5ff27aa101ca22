/// The host's storage: its own folder, opened when something first needs it, and other services.
internal import Bindings
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import Glibc
internal import HTTPServers
internal import StorageAccounts
internal import StorageServers
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

    private var remotes: [String: RemoteAccount] = [:]
    /// Stands in the names of receipts.
    var hostID: @EventLoop () -> String = { "" }

    /// The account a connection leads to.
    func account(for connection: StorageConnection) throws(StorageError) -> any BlobSource & QueueStore {
        if connection.isEmbedded { return try open() }
        let key = "\(connection)"
        if let known = remotes[key] { return known }
        let made = RemoteAccount(connection: connection, hostID: hostID)
        remotes[key] = made
        return made
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

    // MARK: REST

    /// URLs of the Blob and Queue services, as connection strings have them; nil while they are not served.
    private(set) var blobEndpoint: String?
    private(set) var queueEndpoint: String?
    private var listeners: [HTTPListener] = []

    /// The Azure emulators' ports.
    static let blobPort = 10_000
    static let queuePort = 10_001

    /// Serves the folder over the Blob and Queue REST API. A port that is taken is said, and keeps nothing from running.
    ///
    /// Only this machine can reach it, whatever the host listens on: its key is known to everybody.
    func serve(blobPort: Int, queuePort: Int, hostID: @escaping @EventLoop () -> String) {
        guard listeners.isEmpty, let account = try? open() else { return }
        var limits = HTTPLimits()
        limits.bodyByteCount = Self.bodyByteLimit
        let faces: [(String, Int, any HTTPResponder)] = [
            ("Blob", blobPort, BlobFace(account: account, hostID: hostID)),
            ("Queue", queuePort, QueueFace(account: account)),
        ]
        for (name, port, face) in faces where port >= 0 {
            do throws(SystemError) {
                let listener = try HTTPListener(address: "127.0.0.1", port: port, limits: limits, responder: face)
                listeners.append(listener)
                let url = "http://127.0.0.1:\(listener.port)/\(account.accountName)"
                if name == "Blob" { blobEndpoint = url } else { queueEndpoint = url }
            } catch {
                log.log(
                    .warning,
                    "the \(name) service is not served on port \(port): \(error.message); --\(name.lowercased())-port takes another, 0 any free one",
                    [("code", .text("AN1003"))])
            }
        }
        account.blobEndpoint = blobEndpoint
    }

    /// Bytes of one upload; larger blobs come in blocks.
    static let bodyByteLimit = 256 << 20

    func close() async {
        for listener in listeners { listener.close() }
        listeners = []
        if account != nil { unlink(addressFile) }
        await account?.close()
        account = nil
    }
}
