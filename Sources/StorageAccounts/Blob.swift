/// Blobs: names, properties, contents.
public import EventLoops

/// Where a blob is in its account.
public struct BlobAddress: Hashable, Sendable, CustomStringConvertible {
    public let container: String
    /// The name in the container; parts are separated by `/`.
    public let name: String

    public init(container: String, name: String) {
        self.container = container
        self.name = name
    }

    /// `container/name`.
    public var description: String { "\(container)/\(name)" }
}

/// What is known of a blob beside its contents.
public struct BlobProperties: Sendable {
    /// Changes with every change of the blob; without quotes.
    public var etag: String
    /// Seconds since 1970.
    public var lastModified: Double
    public var byteCount: Int
    public var contentType: String
    /// User metadata, names as given.
    public var metadata: [(name: String, value: String)]
    /// Other headers that were given with it, such as `content-encoding`; names in lower case.
    public var headers: [(name: String, value: String)] = []

    /// What a blob has that says nothing else.
    public static let defaultContentType = "application/octet-stream"

    public init(
        etag: String, lastModified: Double, byteCount: Int, contentType: String = Self.defaultContentType,
        metadata: [(name: String, value: String)] = []
    ) {
        self.etag = etag
        self.lastModified = lastModified
        self.byteCount = byteCount
        self.contentType = contentType
        self.metadata = metadata
    }
}

/// A blob, whole.
public struct Blob: Sendable {
    public let properties: BlobProperties
    public let contents: [UInt8]

    public init(properties: BlobProperties, contents: [UInt8]) {
        self.properties = properties
        self.contents = contents
    }
}

/// A blob found by a scan: enough to know whether this version has been processed.
public struct FoundBlob: Sendable, Equatable {
    public let name: String
    public let etag: String

    public init(name: String, etag: String) {
        self.name = name
        self.etag = etag
    }
}

/// What is written beside the contents of a blob.
public struct BlobHeaders: Sendable {
    public var contentType: String
    public var metadata: [(name: String, value: String)]
    /// Other headers, names in lower case.
    public var other: [(name: String, value: String)]

    public init(
        contentType: String = BlobProperties.defaultContentType, metadata: [(name: String, value: String)] = [],
        other: [(name: String, value: String)] = []
    ) {
        self.contentType = contentType
        self.metadata = metadata
        self.other = other
    }
}

/// A condition on the state of a blob, checked at the moment of the change.
public enum BlobCondition: Sendable, Equatable {
    /// `If-Match`; `*` is any version.
    case matches(String)
    /// `If-None-Match`; `*` is "does not exist".
    case differs(String)

    /// Whether a blob with this ETag, or none, is in the state asked for.
    public func holds(for etag: String?) -> Bool {
        switch self {
        case .matches("*"): etag != nil
        case .matches(let wanted): etag == wanted
        case .differs("*"): etag == nil
        case .differs(let unwanted): etag != unwanted
        }
    }
}

/// A place that keeps blobs: the app's folder, or another service.
@EventLoop
public protocol BlobStore: AnyObject {
    var accountName: String { get }
    /// The absolute URL of a blob.
    func url(of address: BlobAddress) -> String
    /// A blob; nil when it is not there.
    func read(_ address: BlobAddress, limit: Int) async throws(StorageError) -> Blob?
    /// Writes a blob whole, making its container when needed; no reader sees half of it.
    func write(_ address: BlobAddress, _ contents: [UInt8], _ headers: BlobHeaders) async throws(StorageError)
        -> BlobProperties
}
