/// Where a storage folder is, and who may change what the host keeps in it.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import HTTPClients
import JSONText
import StorageAccounts

/// The options of commands about the storage folder.
struct StorageLocation: ParsableArguments {
    @Option(help: "Folder of the storage account (default: storage in the app).")
    var storage: String?

    @Option(name: [.customLong("app")], help: "The function app's folder (default: the nearest with a host.json).")
    var app: String?

    @Option(help: "The master key, when the host demands keys.")
    var key: String?

    /// The storage folder, absolute.
    func root() -> String {
        if let storage { return absolutePath(storage, in: currentFolder()) }
        var location = AppLocation()
        location.path = app
        location.scriptRoot = nil
        location.stateFolder = nil
        return location.folder() + "/storage"
    }

    var folder: BlobFolder { BlobFolder(root: root()) }

    /// The URL of the host that has the folder open; nil when none has.
    func hostURL() -> String? {
        guard let bytes = readFile(folder.privateFolder + "/host", limit: 1000) else { return nil }
        let url = String(decoding: bytes, as: UTF8.self).filter { !$0.isWhitespace }
        return url.isEmpty ? nil : url
    }

    /// A blob's address from `container/name`, or from the path of its file.
    func address(_ text: String) throws -> BlobAddress {
        let root = root()
        let path = absolutePath(text, in: currentFolder())
        let relative = path.hasPrefix(root + "/") ? String(path.dropFirst(root.count + 1)) : text
        let halves = relative.split(separator: "/", maxSplits: 1).map(String.init)
        guard halves.count == 2, !relative.hasPrefix("/") else {
            throw ValidationError("'\(text)' is no blob; it is container/name, or a file below \(root).")
        }
        return BlobAddress(container: halves[0], name: halves[1])
    }

    /// Asks the host that has the folder. nil when none runs.
    @EventLoop
    func ask(
        _ method: String, _ path: String, _ body: [UInt8] = []
    ) async throws(HTTPClientError) -> HTTPClientResponse? {
        guard let url = hostURL() else { return nil }
        var headers: [(name: String, value: String)] = key.map { [("x-functions-key", $0)] } ?? []
        if !body.isEmpty { headers.append(("Content-Type", "application/json")) }
        do throws(HTTPClientError) {
            return try await HTTPClient().send(
                HTTPClientRequest(
                    method: method, url: url + "/admin/storage/" + path, headers: headers, body: body,
                    timeout: .seconds(600)))
        } catch {
            // The file of a host that was killed.
            if error.isRefused { return nil }
            throw error
        }
    }

    /// Asks the host, or opens the ledger when none runs.
    @EventLoop
    func request(
        _ method: String, _ path: String, _ body: [UInt8] = [],
        orElse work: @EventLoop (AccountLedger) async throws(StorageError) -> [UInt8]
    ) async -> [UInt8]? {
        do throws(HTTPClientError) {
            if let response = try await ask(method, path, body) {
                if response.status == 200 { return response.body }
                complain(describe(response))
                return nil
            }
        } catch {
            complain("\(error)")
            return nil
        }
        do throws(StorageError) {
            try folder.prepare()
            let account = try FolderAccount(root: root(), log: .discarding)
            let result: Result<[UInt8], StorageError>
            do throws(StorageError) {
                result = .success(try await work(account.ledger))
            } catch {
                result = .failure(error)
            }
            await account.close()
            return try result.get()
        } catch {
            complain(error.description)
            return nil
        }
    }

    /// An error answer of a host, as a terminal shows it.
    func describe(_ response: HTTPClientResponse) -> String {
        if response.status == 401 {
            return "error[AN3004]: the host demands a key\n  try: --key KEY with the master key"
        }
        let error = (try? JSONParser.parse(response.body))?["error"]
        let remedy = error?["try"]?.string.map { "\n  try: \($0)" } ?? ""
        return
            "error[\(error?["code"]?.string ?? "AN1001")]: \(error?["message"]?.string ?? "status \(response.status)")\(remedy)"
    }
}
