/// What can go wrong with blobs and queues, in words that name the blob or the queue.
public import Diagnostics
public import DurableStores

/// An error of a storage account.
public enum StorageError: HostError, Equatable {
    case store(StoreError)
    /// The storage folder cannot be used.
    case folder(path: String, reason: String)
    /// A blob is there and cannot be read.
    case unreadable(blob: String, reason: String)
    /// What has the blob's name is a folder, a pipe, a device.
    case notAFile(blob: String, kind: String)
    /// A link leads out of the container.
    case linkLeadsOut(blob: String)
    case tooLarge(blob: String, byteCount: Int, limit: Int)
    /// The name cannot be a blob's in a folder.
    case badName(String)
    case unwritable(blob: String, reason: String)
    case noRoom(blob: String)
    /// A condition on the ETag did not hold, or the blob exists already.
    case conditionNotMet(blob: String)
    /// No more folders can be watched.
    case watchLimit(folder: String)
    /// Another service refused.
    case refused(service: String, status: Int, reason: String)
    /// Another service cannot be reached.
    case unreachable(service: String, reason: String)

    public var code: String {
        switch self {
        case .store(let error): error.code
        case .folder: "AN7012"
        case .unreadable: "AN7013"
        case .notAFile: "AN7014"
        case .linkLeadsOut: "AN7015"
        case .tooLarge: "AN7016"
        case .badName: "AN7017"
        case .unwritable: "AN7018"
        case .noRoom: "AN7019"
        case .conditionNotMet: "AN7020"
        case .watchLimit: "AN7021"
        case .refused: "AN7022"
        case .unreachable: "AN7023"
        }
    }

    public var fault: Fault {
        switch self {
        case .store(let error): error.fault
        case .folder, .unwritable, .noRoom, .watchLimit, .refused, .unreachable: .service
        case .unreadable, .notAFile, .linkLeadsOut, .tooLarge, .badName, .conditionNotMet: .user
        }
    }

    public var message: String {
        switch self {
        case .store(let error): error.message
        case .folder(let path, let reason): "the storage folder '\(path)' cannot be used: \(reason)"
        case .unreadable(let blob, let reason): "the blob '\(blob)' cannot be read: \(reason)"
        case .notAFile(let blob, let kind): "'\(blob)' is \(kind), not a file"
        case .linkLeadsOut(let blob): "'\(blob)' is a link that leads out of its container"
        case .tooLarge(let blob, let byteCount, let limit):
            "the blob '\(blob)' has \(byteCount) bytes; the limit is \(limit)"
        case .badName(let name): "'\(name)' cannot be a blob's name here"
        case .unwritable(let blob, let reason): "the blob '\(blob)' cannot be written: \(reason)"
        case .noRoom(let blob): "there is no room for the blob '\(blob)'"
        case .conditionNotMet(let blob): "the blob '\(blob)' is not in the state that was asked for"
        case .watchLimit(let folder): "the system watches no more folders; '\(folder)' is looked at every 10 s instead"
        case .refused(let service, let status, let reason): "\(service) answered \(status): \(reason)"
        case .unreachable(let service, let reason): "\(service) cannot be reached: \(reason)"
        }
    }

    public var remedy: String? {
        switch self {
        case .store(let error): error.remedy
        case .folder: "see that it exists and can be written, or give another one with --storage"
        case .unreadable: "see who may read it, then touch it or run `andiron blob reprocess`"
        case .notAFile: "move it out of the container"
        case .linkLeadsOut: "copy the file into the container"
        case .tooLarge: "raise extensions.blobs.maxBlobBytes in host.json"
        case .badName: "1 to 1024 characters; parts between slashes of 1 to 255 bytes, not '.' or '..'; no backslash"
        case .unwritable: "see who may write there"
        case .noRoom: "free some space on that disk; it is tried again"
        case .watchLimit: "raise it: sysctl fs.inotify.max_user_watches=1048576"
        case .conditionNotMet, .refused: nil
        case .unreachable: "check the endpoint in the connection string"
        }
    }
}
