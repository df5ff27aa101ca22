/// A failed system call: which call, on what, and the system's own words.
internal import CUV
public import Diagnostics

/// What the operating system or libuv refused.
public struct SystemError: HostError, Equatable {
    /// The call that failed, as libuv or the manual page names it.
    public let call: String
    /// The system's symbol, for example `EADDRINUSE`.
    public let symbol: String
    /// What it was about: a path, an address; empty when there is nothing to name.
    public let subject: String
    private let text: String

    init(_ call: String, _ status: Int32, _ subject: String = "") {
        self.call = call
        self.subject = subject
        symbol = String(cString: uv_err_name(status))
        text = String(cString: uv_strerror(status))
    }

    /// An error of TLS after the handshake, in OpenSSL's words; its symbol is `ETLS`.
    init(tls reason: String, peer: String) {
        call = "TLS"
        subject = peer
        symbol = "ETLS"
        text = reason
    }

    /// An error from `errno` right after a failed call.
    public init(errno number: Int32, call: String, subject: String = "") {
        self.init(call, -number, subject)
    }

    public var code: String { "AN1001" }
    public var fault: Fault { .host }
    public var message: String {
        subject.isEmpty ? "\(call): \(text) (\(symbol))" : "\(call) '\(subject)': \(text) (\(symbol))"
    }
    public var remedy: String? { nil }
}
