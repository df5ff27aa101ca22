/// What can go wrong with a durable store, in words that name the file.
public import Diagnostics

/// An error of one store; the store itself goes on unless it could not be opened.
public enum StoreError: HostError, Equatable {
    /// The file or its folder cannot be used; the system's words.
    case unopenable(path: String, reason: String)
    /// Another process has it open.
    case held(path: String, holder: String)
    /// The file is no database, is cut short, or contradicts itself.
    case damaged(path: String, reason: String)
    /// A later version of the program has written it.
    case tooNew(path: String, version: Int, known: Int)
    /// There is no room for what was to be written; nothing of it was.
    case full(path: String)
    /// Writing failed for another reason.
    case failed(path: String, reason: String)
    /// The store has been closed.
    case closed(path: String)

    public var code: String {
        switch self {
        case .unopenable: "AN7001"
        case .held: "AN7002"
        case .damaged: "AN7003"
        case .tooNew: "AN7004"
        case .full: "AN7005"
        case .failed, .closed: "AN7006"
        }
    }

    public var fault: Fault { if case .closed = self { .host } else { .service } }

    public var message: String {
        switch self {
        case .unopenable(let path, let reason): "the store '\(path)' cannot be opened: \(reason)"
        case .held(let path, let holder): "the store '\(path)' is in use by \(holder)"
        case .damaged(let path, let reason): "the store '\(path)' is damaged: \(reason)"
        case .tooNew(let path, let version, let known):
            "the store '\(path)' has version \(version); this program knows up to \(known)"
        case .full(let path): "there is no room to write to the store '\(path)'"
        case .failed(let path, let reason): "writing to the store '\(path)' failed: \(reason)"
        case .closed(let path): "the store '\(path)' is closed"
        }
    }

    public var remedy: String? {
        switch self {
        case .unopenable: "see that the folder exists and can be written"
        case .held: "stop that process, or give this one another storage folder"
        case .damaged(let path, _): "move '\(path)' away (with its -wal file): a new one is made at the next start"
        case .tooNew: "run the newer version, or move the file away"
        case .full: "free some space on that disk; what was refused is tried again where it can be"
        case .failed, .closed: nil
        }
    }
}
