/// Where a function's input comes from when a request names a key instead of carrying data.

/// function.json `features`: the request's key leads to the model's input in Redis.
public struct FeatureSource: Sendable, Hashable {
    /// How features are kept.
    public enum Format: String, Sendable, CaseIterable {
        /// A string with JSON text.
        case json
        /// A hash: its fields become an object, or, where ``FeatureSource/fields`` names them, an array of numbers.
        case hash
        /// A string of packed little-endian 32-bit floats.
        case float32
    }

    /// What happens when a key, or Redis, is not there.
    public enum Missing: String, Sendable, CaseIterable {
        /// The request fails: 404 for a key, 503 for Redis.
        case notFound = "404"
        /// The request's body goes to the model as it is.
        case body
    }

    /// The member of the request that names a key or a list of keys, default `key`.
    public var member = "key"
    /// Text before each key, default none.
    public var prefix = ""
    public var format = Format.json
    /// Fields of a hash, in the model's order; nil takes all, as an object.
    public var fields: [String]?
    /// The member that takes the features, default `data`.
    public var input = "data"
    /// True gives a list even for one key, as models expect a batch; default true.
    public var isBatch = true
    public var missing = Missing.notFound
    /// The longest wait for Redis, default one second.
    public var timeout = Duration.seconds(1)

    public init() {}
}
