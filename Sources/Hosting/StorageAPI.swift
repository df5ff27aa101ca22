/// The admin API's view of the storage folder, below `/admin/storage/`: what the command line asks a running host.
internal import ConfigurationFiles
internal import Diagnostics
internal import DurableStores
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages
internal import HTTPServers
internal import Invocations
internal import JSONText
internal import StorageAccounts
internal import Triggers

/// Receipts, poison messages, reprocessing and manual triggers.
@EventLoop
final class StorageAPI {
    private unowned let host: FunctionHost
    private static let prefix = Array("/admin/storage/".utf8)

    /// Receipts or messages in one answer.
    static let listLimit = 5000

    init(host: FunctionHost) { self.host = host }

    /// Answers what is about storage; nil for everything else.
    func respond(to request: HTTPRequest, _ admin: AdminAPI) -> Eventual<HTTPResponse>? {
        guard request.head.path.starts(with: Self.prefix) else { return nil }
        if let refusal = admin.refusal(request.head) { return .now(refusal) }
        let path = String(decoding: request.head.path.dropFirst(Self.prefix.count), as: UTF8.self)
        return .awaiting { [self] in
            do throws(StorageError) {
                return try await answer(path, request)
            } catch {
                return errorResponse(
                    error.fault == .user ? 400 : 503, code: error.code, error.message, remedy: error.remedy)
            }
        }
    }

    private func answer(_ path: String, _ request: HTTPRequest) async throws(StorageError) -> HTTPResponse {
        let query = PercentCoding.query(request.head.query)
        let value = { (name: String) in query.last { $0.name == name }?.value }
        let body = try? JSONParser.parse(request.body)
        switch path {
        case "receipts" where request.head.isMethod("GET"):
            let account = try host.storage.open()
            let receipts = try await list(account.ledger, function: value("function"), prefix: value("prefix") ?? "")
            return .json(200, receiptsDocument(receipts))
        case "messages" where request.head.isMethod("GET"):
            let account = try host.storage.open()
            let queue = value("queue") ?? BlobListener.poisonQueue
            let messages = try await done(account.ledger.peek(queue: queue, count: Self.listLimit))
            return .json(200, messagesDocument(messages))
        case "reprocess" where request.head.isMethod("POST"):
            guard let container = body?["container"]?.string else { return HTTPResponse(status: 400) }
            let account = try host.storage.open()
            let count = try await done(
                account.ledger.forget(
                    function: body?["function"]?.string, container: container, name: body?["name"]?.string))
            account.rescan(container)
            return .json(200, Array("{\"count\":\(count)}".utf8))
        case "trigger" where request.head.isMethod("POST"):
            return try await trigger(function: body?["function"]?.string ?? "", blob: body?["blob"]?.string ?? "")
        default: return HTTPResponse(status: 404)
        }
    }

    private func list(
        _ ledger: AccountLedger, function: String?, prefix: String
    ) async throws(StorageError) -> [Receipt] {
        try await done(
            ledger.receipts(function: function, prefix: prefix, state: nil, limit: Self.listLimit))
    }

    private func done<Value>(_ result: Eventual<Result<Value, StoreError>>) async throws(StorageError) -> Value {
        switch await result.value() {
        case .success(let value): return value
        case .failure(let error): throw StorageError.store(error)
        }
    }

    /// Runs a blob-triggered function for one blob, whatever its receipts say, and tells how it ended.
    private func trigger(function: String, blob: String) async throws(StorageError) -> HTTPResponse {
        let listener = host.listeners.listener(of: host.functionName(like: function)) as? DeferredListener
        guard let listener = listener?.listener as? BlobListener else {
            return errorResponse(
                404, code: "AN2013", "there is no blob-triggered function '\(function)' that listens",
                remedy: "see `andiron validate` and /readyz?verbose")
        }
        let halves = blob.split(separator: "/", maxSplits: 1).map(String.init)
        guard halves.count == 2 else { throw StorageError.badName(blob) }
        let address = BlobAddress(container: halves[0], name: halves[1])
        guard let outcome = try await listener.runNow(address) else {
            return errorResponse(404, code: "AN7013", "there is no blob '\(address)'")
        }
        guard let failure = outcome.failure else {
            return HTTPResponse(
                status: 200, contentType: outcome.response?.contentType ?? "application/octet-stream",
                body: outcome.response?.body ?? [])
        }
        return errorResponse(500, code: failure.code, failure.message, remedy: failure.remedy)
    }
}
