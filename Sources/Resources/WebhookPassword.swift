/// The password that a registry's webhook must bring; made when it is first asked for.
internal import ConfigurationFiles
internal import EventLoops

/// Kept in a file of the app's state that only its owner can read.
public struct WebhookPassword: Sendable {
    private let path: String

    public init(stateFolder: String) { path = stateFolder + "/webhook-password" }

    /// The password, or nil when none was made.
    public var existing: String? {
        readFile(path, limit: 200).map { String(decoding: $0, as: UTF8.self) }.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The password; made when there is none.
    public func value() throws(ResourceError) -> String {
        if let existing { return existing }
        let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)
        let made = String(decoding: randomBytes(48).map { letters[Int($0) % letters.count] }, as: UTF8.self)
        do throws(SystemError) {
            if let slash = path.lastIndex(of: "/") { try createFolders(String(path[..<slash]), mode: 0o700) }
            try writeFileAtomically(path, Array(made.utf8), mode: 0o600)
        } catch {
            throw .store(error.message)
        }
        return made
    }
}
