/// Storage connection strings and how a binding's `connection` leads to one.
///
/// Rules and messages are those of the WebJobs SDK (StorageAccountProvider) and the storage client libraries.
internal import ConfigurationFiles

/// Where a storage account is and how to be let in.
public struct StorageConnection: Sendable, Equatable {
    /// What a request proves its right with.
    public enum Credential: Sendable, Equatable {
        case sharedKey([UInt8])
        /// A query string, without `?`.
        case signature(String)
    }

    /// True for the app's own storage folder.
    public let isEmbedded: Bool
    public let accountName: String
    /// URLs without a slash at their end; empty for the folder.
    public let blobEndpoint: String
    public let queueEndpoint: String
    public let credential: Credential?

    /// The development account of every storage emulator.
    public static let developmentAccount = "devstoreaccount1"
    /// Its well-known key, in Base64: public on purpose, and good for nothing else.
    public static let developmentKey =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    /// The app's own folder.
    public static let embedded = StorageConnection(
        isEmbedded: true, accountName: developmentAccount, blobEndpoint: "", queueEndpoint: "", credential: nil)

    private init(
        isEmbedded: Bool, accountName: String, blobEndpoint: String, queueEndpoint: String, credential: Credential?
    ) {
        self.isEmbedded = isEmbedded
        self.accountName = accountName
        self.blobEndpoint = blobEndpoint
        self.queueEndpoint = queueEndpoint
        self.credential = credential
    }

    /// Why text is no connection string; never holds its secrets.
    public struct Invalid: Error, Equatable, Sendable {
        public let reason: String
    }

    static let keys = [
        "DefaultEndpointsProtocol", "AccountName", "AccountKey", "EndpointSuffix", "BlobEndpoint", "QueueEndpoint",
        "TableEndpoint", "FileEndpoint", "BlobSecondaryEndpoint", "QueueSecondaryEndpoint", "TableSecondaryEndpoint",
        "FileSecondaryEndpoint", "SharedAccessSignature", "UseDevelopmentStorage", "DevelopmentStorageProxyUri",
    ]

    /// Parses a connection string.
    public init(_ text: String) throws(Invalid) {
        let values = try Self.settings(in: text)
        if let development = values["usedevelopmentstorage"] {
            guard development.lowercased() == "true" else {
                throw Invalid(reason: "UseDevelopmentStorage can only be true")
            }
            guard let proxy = values["developmentstorageproxyuri"] else {
                self = .embedded
                return
            }
            let base = try Self.endpoint(proxy, "DevelopmentStorageProxyUri")
            self.init(
                isEmbedded: false, accountName: Self.developmentAccount,
                blobEndpoint: "\(base):10000/\(Self.developmentAccount)",
                queueEndpoint: "\(base):10001/\(Self.developmentAccount)",
                credential: .sharedKey(decodeBase64(Self.developmentKey) ?? []))
            return
        }
        let name = values["accountname"]
        var credential: Credential?
        if let key = values["accountkey"] {
            guard let bytes = decodeBase64(key), !bytes.isEmpty else {
                throw Invalid(reason: "AccountKey is not Base64")
            }
            guard name != nil else { throw Invalid(reason: "AccountKey needs AccountName") }
            credential = .sharedKey(bytes)
        } else if let signature = values["sharedaccesssignature"] {
            credential = .signature(signature.hasPrefix("?") ? String(signature.dropFirst()) : signature)
        }
        let scheme = values["defaultendpointsprotocol"] ?? "https"
        guard scheme == "http" || scheme == "https" else {
            throw Invalid(reason: "DefaultEndpointsProtocol is '\(scheme)'; it is http or https")
        }
        let suffix = values["endpointsuffix"] ?? "core.windows.net"
        let blob = try values["blobendpoint"].map { (text) throws(Invalid) in try Self.endpoint(text, "BlobEndpoint") }
        let queue = try values["queueendpoint"].map { (text) throws(Invalid) in
            try Self.endpoint(text, "QueueEndpoint")
        }
        guard blob != nil || queue != nil || name != nil else {
            throw Invalid(reason: "it has neither AccountName nor BlobEndpoint")
        }
        self.init(
            isEmbedded: false, accountName: name ?? Self.account(in: blob ?? queue ?? ""),
            blobEndpoint: blob ?? name.map { "\(scheme)://\($0).blob.\(suffix)" } ?? "",
            queueEndpoint: queue ?? name.map { "\(scheme)://\($0).queue.\(suffix)" } ?? "", credential: credential)
    }

    private static func settings(in text: String) throws(Invalid) -> [String: String] {
        var values: [String: String] = [:]
        for part in text.split(separator: ";") {
            let piece = part.drop { $0 == " " }
            if piece.isEmpty { continue }
            guard let equals = piece.firstIndex(of: "="), equals > piece.startIndex else {
                throw Invalid(reason: "a setting has no '='")
            }
            let name = String(piece[..<equals])
            guard keys.contains(where: { $0.caseInsensitiveEquals(name) }) else {
                throw Invalid(reason: "'\(name.prefix(40))' is no setting of a connection string")
            }
            guard values[name.lowercased()] == nil else { throw Invalid(reason: "\(name) is given twice") }
            values[name.lowercased()] = String(piece[piece.index(after: equals)...])
        }
        guard !values.isEmpty else { throw Invalid(reason: "it is empty") }
        return values
    }

    private static func endpoint(_ text: String, _ name: String) throws(Invalid) -> String {
        let lower = text.lowercased()
        guard lower.hasPrefix("http://") || lower.hasPrefix("https://"), !text.contains(where: \.isWhitespace),
            text.count > (lower.hasPrefix("https") ? 8 : 7)
        else { throw Invalid(reason: "\(name) is not an http or https URL") }
        return text.hasSuffix("/") ? String(text.dropLast()) : text
    }

    /// The account a URL names: its last path segment for emulators, else the first label of the host.
    private static func account(in endpoint: String) -> String {
        let parts = endpoint.split(separator: "/").dropFirst()
        if parts.count > 1, let last = parts.last { return String(last) }
        return String(parts.first?.prefix { $0 != "." && $0 != ":" } ?? "")
    }
}

extension StorageConnection {
    /// Why a binding's `connection` leads nowhere.
    public struct Problem: Error, Sendable {
        public let message: String
        public let remedy: String
    }

    /// The connection that a binding names; without a name, `AzureWebJobsStorage`, and without that the app's folder.
    public static func resolve(_ name: String?, settings: AppSettings) throws(Problem) -> StorageConnection {
        let wanted = name.flatMap { $0.isEmpty ? nil : $0 } ?? "Storage"
        let names = [
            "ConnectionStrings:AzureWebJobs\(wanted)", "AzureWebJobs\(wanted)", "ConnectionStrings:\(wanted)", wanted,
        ]
        guard let text = names.lazy.compactMap({ settings[$0] }).first(where: { !$0.isEmpty }) else {
            if wanted == "Storage" || wanted.caseInsensitiveEquals("AzureWebJobsStorage") { return .embedded }
            // Somebody may have put the connection string itself here.
            let shown = wanted.contains("=") ? "<redacted>" : wanted
            throw Problem(
                message:
                    "Storage account connection string '\(shown)' does not exist. Make sure that it is a defined App Setting.",
                remedy: "set \(wanted.contains("=") ? "a name" : wanted) in local.settings.json or in the environment")
        }
        do throws(Invalid) {
            return try StorageConnection(text)
        } catch {
            throw Problem(
                message: "Storage account connection string for '\(wanted)' is invalid: \(error.reason)",
                remedy: "UseDevelopmentStorage=true, or AccountName=…;AccountKey=…;BlobEndpoint=…")
        }
    }
}

/// The bytes of Base64 text with its padding; nil when it is none.
public func decodeBase64(_ text: some StringProtocol) -> [UInt8]? {
    var bytes: [UInt8] = []
    var bits: UInt32 = 0
    var count = 0
    var padding = 0
    for byte in text.utf8 {
        let value: UInt32
        switch byte {
        case 0x41...0x5A: value = UInt32(byte) - 0x41
        case 0x61...0x7A: value = UInt32(byte) - 0x47
        case 0x30...0x39: value = UInt32(byte) + 4
        case 0x2B: value = 62
        case 0x2F: value = 63
        case 0x3D:
            padding += 1
            count += 1
            continue
        default: return nil
        }
        guard padding == 0 else { return nil }
        bits = bits << 6 | value
        count += 1
        if count % 4 == 0 {
            bytes += [UInt8(bits >> 16 & 255), UInt8(bits >> 8 & 255), UInt8(bits & 255)]
            bits = 0
        }
    }
    guard count % 4 == 0, padding <= 2 else { return nil }
    if padding == 1 { bytes += [UInt8(bits >> 10 & 255), UInt8(bits >> 2 & 255)] }
    if padding == 2 { bytes.append(UInt8(bits >> 4 & 255)) }
    return bytes
}

/// Base64 text of bytes, with padding.
public func encodeBase64(_ bytes: some Collection<UInt8>) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    var bits: UInt32 = 0
    var count = 0
    for byte in bytes {
        bits = bits << 8 | UInt32(byte)
        count += 1
        if count == 3 {
            for shift in [18, 12, 6, 0] { text.append(alphabet[Int(bits >> UInt32(shift) & 63)]) }
            bits = 0
            count = 0
        }
    }
    if count == 1 {
        text += [alphabet[Int(bits >> 2 & 63)], alphabet[Int(bits << 4 & 63)], 0x3D, 0x3D]
    } else if count == 2 {
        text += [alphabet[Int(bits >> 10 & 63)], alphabet[Int(bits >> 4 & 63)], alphabet[Int(bits << 2 & 63)], 0x3D]
    }
    return String(decoding: text, as: UTF8.self)
}
