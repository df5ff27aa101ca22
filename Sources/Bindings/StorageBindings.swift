/// Blob and queue bindings: inputs read before a function runs, outputs written after.
internal import Diagnostics
public import EventLoops
internal import FunctionApps
public import Invocations
public import StorageAccounts

/// Gives an account when it is first needed; throws while it cannot be had.
public typealias BlobStoreSource = @EventLoop () throws(StorageError) -> any BlobStore
/// Gives an account's queues when they are first needed.
public typealias QueueStoreSource = @EventLoop () throws(StorageError) -> any QueueStore

/// The container and name a template gives for an invocation.
@EventLoop
private func address(
    _ path: BindingTemplate, _ invocation: Invocation, _ data: BindingData, _ binding: String
) throws(InvocationFailure) -> BlobAddress {
    let text = try path.text(for: invocation, data, binding: binding)
    let halves = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard halves.count == 2, isContainerName(String(halves[0])), isBlobName(String(halves[1])) else {
        throw InvocationFailure(StorageError.badName(text), binding: binding)
    }
    return BlobAddress(container: String(halves[0]), name: String(halves[1]))
}

/// `blob` with direction in: the contents of a blob in place of the trigger's value.
@EventLoop
public final class BlobInput: InputBinding {
    public let name: String
    private let path: BindingTemplate
    private let store: BlobStoreSource
    private let byteLimit: Int

    public init(name: String, path: BindingTemplate, byteLimit: Int, store: @escaping BlobStoreSource) {
        self.name = name
        self.path = path
        self.byteLimit = byteLimit
        self.store = store
    }

    public func read(for invocation: Invocation, _ data: BindingData) async throws(InvocationFailure) -> [UInt8]? {
        let address = try address(path, invocation, data, name)
        do throws(StorageError) {
            return try await store().read(address, limit: byteLimit)?.contents
        } catch {
            throw InvocationFailure(error, binding: name)
        }
    }
}

/// `blob` with direction out: writes a blob whole.
@EventLoop
public final class BlobOutput: OutputBinding {
    public let name: String
    private let path: BindingTemplate
    private let store: BlobStoreSource

    public init(name: String, path: BindingTemplate, store: @escaping BlobStoreSource) {
        self.name = name
        self.path = path
        self.store = store
    }

    public func write(
        _ value: OutputValue, for invocation: Invocation, _ data: BindingData
    ) async throws(InvocationFailure) {
        guard let contents = value.contents else { return }
        let address = try address(path, invocation, data, name)
        do throws(StorageError) {
            let store = try store()
            let folder = store as? FolderAccount
            // The event of the new blob can come before the write returns.
            folder?.note(author: "\(invocation.id)", of: address)
            _ = try await store.write(address, contents, BlobHeaders())
        } catch {
            throw InvocationFailure(error, binding: name)
        }
    }
}

/// `queue` with direction out: puts a message, or one for each element of an array.
@EventLoop
public final class QueueOutput: OutputBinding {
    public let name: String
    private let queue: BindingTemplate
    private let isBase64: Bool
    private let store: QueueStoreSource

    public init(name: String, queue: BindingTemplate, isBase64: Bool, store: @escaping QueueStoreSource) {
        self.name = name
        self.queue = queue
        self.isBase64 = isBase64
        self.store = store
    }

    public func write(
        _ value: OutputValue, for invocation: Invocation, _ data: BindingData
    ) async throws(InvocationFailure) {
        let queueName = try queue.text(for: invocation, data, binding: name).lowercased()
        do throws(StorageError) {
            guard isStorageName(queueName) else { throw StorageError.badName(queueName) }
            let messages = value.elements.compactMap(\.contents).map { body in
                NewMessage(body: isBase64 ? Array(encodeBase64(body).utf8) : body)
            }
            if messages.isEmpty { return }
            for message in messages where message.body.count > NewMessage.byteLimit {
                throw StorageError.tooLarge(
                    blob: "queue \(queueName)", byteCount: message.body.count, limit: NewMessage.byteLimit)
            }
            try await store().put(messages, queue: queueName)
        } catch {
            throw InvocationFailure(error, binding: name)
        }
    }
}
