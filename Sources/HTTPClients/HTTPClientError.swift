/// What can go wrong with an outgoing request.
public import Diagnostics

/// An error of ``HTTPClient``.
public struct HTTPClientError: HostError {
    /// curl's own number, `CURLE_…`.
    public let number: UInt32
    private let url: String
    private let reason: String

    init(number: UInt32, url: String, reason: String) {
        self.number = number
        self.url = url
        self.reason = reason
    }

    public var code: String { "AN1002" }
    public var fault: Fault { .service }
    public var message: String { "\(url): \(reason)" }
    public var remedy: String? { isRefused ? "is the host running? andiron start" : nil }
    /// Nobody listens at the address.
    public var isRefused: Bool { number == 7 }
}
