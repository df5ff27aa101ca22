/// What can go wrong with an image: which image, at which step, why, and what to do.
public import Diagnostics

/// An error of this module.
public struct ImageError: HostError {
    /// The kinds, each with its code.
    public enum Kind: String, Sendable {
        /// The image's name is none.
        case reference = "AN9001"
        /// The registry cannot be reached, or hangs up.
        case unreachable = "AN9002"
        /// Credentials are missing, wrong, expired, or have too few rights.
        case unauthorized = "AN9003"
        /// The registry has no such image, tag or repository.
        case notFound = "AN9004"
        /// The registry's answer is not one a registry gives.
        case protocolViolation = "AN9005"
        /// The image is of a kind that is not supported.
        case unsupported = "AN9006"
        /// What came is not what its digest or size promised.
        case verification = "AN9007"
        /// A layer tries something an image has no business with.
        case hostileLayer = "AN9008"
        /// A layer is past a limit.
        case limit = "AN9009"
        /// The time for a start is over.
        case timeLimit = "AN9010"
        /// The content store cannot be read or written.
        case store = "AN9011"
        /// The registry asks to be left alone, or is failing.
        case busy = "AN9012"
        /// The image is sound but no function app.
        case notAnApp = "AN9013"
        /// What is to be packaged is not as it must be.
        case package = "AN9014"

        /// What to do when nothing more is known than the kind.
        var usualRemedy: String? {
            switch self {
            case .reference: "write it as registry/repository:tag, the repository in lower case"
            case .unreachable: "is the registry running, and is the address right?"
            case .unauthorized: "check the user name and the password"
            case .notFound: "check the name and the tag"
            case .protocolViolation: "is it a registry, and is nothing in between answering for it?"
            case .unsupported: "push an image as docker, podman or andiron package make it"
            case .verification:
                "push the image again; if that does not help, look at what is between here and the registry"
            case .hostileLayer: "do not use this image unless you know who made it"
            case .limit: "is this image yours? build it with less; the limits are in docs/reference/images.md"
            case .timeLimit:
                "raise WEBSITES_CONTAINER_START_TIME_LIMIT (seconds, up to 1800), or make the image smaller"
            case .store: "check the cache folder: its disk, and its permissions"
            case .busy: "try again later"
            case .notAnApp: "package it with andiron package"
            case .package: nil
            }
        }
    }

    public let kind: Kind
    /// The image, as the user would name it.
    public let image: String
    /// What was being done.
    public let step: String
    /// What happened.
    public let reason: String
    public let remedy: String?
    /// The registry's own error codes, `MANIFEST_UNKNOWN` for example.
    public var registryCodes: [String] = []
    /// The HTTP status behind it, 0 when there is none.
    public var status = 0

    public init(_ kind: Kind, image: String, step: String, _ reason: String, remedy: String? = nil) {
        self.kind = kind
        self.image = image
        self.step = step
        self.reason = reason
        self.remedy = remedy ?? kind.usualRemedy
    }

    public var code: String { kind.rawValue }
    public var fault: Fault {
        switch kind {
        case .reference, .unauthorized, .notFound, .notAnApp, .package, .unsupported: .user
        case .unreachable, .protocolViolation, .verification, .hostileLayer, .limit, .timeLimit, .busy: .service
        case .store: .host
        }
    }
    public var message: String {
        let place = [image, step].filter { !$0.isEmpty }.joined(separator: ": ")
        return place.isEmpty ? reason : "\(place): \(reason)"
    }
}
