/// What can go wrong with an outgoing request.
public import Diagnostics

/// An error of ``HTTPClient``.
public struct HTTPClientError: HostError {
    /// curl's own number, `CURLE_…`.
    public let number: UInt32
    private let url: String
    /// curl's own words.
    public let reason: String
    /// The status, when a head had come; else 0.
    public let status: Int

    init(number: UInt32, url: String, reason: String, status: Int = 0) {
        self.status = status
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
    /// Somebody ended it on this side.
    public var isCancelled: Bool { number == 42 || number == 23 }
    /// The other side does not speak TLS.
    public var isNotTLS: Bool { number == 35 }
    /// Trying again may help: the network, not what was asked.
    public var isTransient: Bool { [5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92].contains(number) }
}
