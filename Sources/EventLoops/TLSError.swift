/// What can go wrong with TLS: which peer, why, and what to do.
public import Diagnostics

/// An error about a TLS connection or its files.
public enum TLSError: HostError, Equatable {
    /// A file with certificates or a key cannot be used.
    case file(String, reason: String)
    /// The peer's certificate ended; `date` is when.
    case expired(peer: String, date: String)
    /// The peer's certificate is not valid yet; `date` is from when.
    case notYetValid(peer: String, date: String)
    /// The peer's certificate is for other names.
    case wrongHost(peer: String, expected: String, names: String)
    /// Nobody this machine trusts vouches for the peer's certificate.
    case unknownAuthority(peer: String, issuer: String, isSelfSigned: Bool)
    /// The certificate is refused for another reason, in OpenSSL's words.
    case certificate(peer: String, reason: String)
    /// The handshake failed, in OpenSSL's words.
    case handshake(peer: String, reason: String)
    /// What answers does not speak TLS.
    case notTLS(peer: String)
    /// The peer closed during the handshake.
    case closed(peer: String)
    /// The handshake took too long.
    case timedOut(peer: String, limit: Duration)

    public var code: String {
        switch self {
        case .file: "AN1012"
        case .expired, .notYetValid, .wrongHost, .unknownAuthority, .certificate: "AN1010"
        case .handshake, .notTLS, .closed, .timedOut: "AN1011"
        }
    }

    public var fault: Fault {
        if case .file = self { .user } else { .service }
    }

    public var message: String {
        switch self {
        case .file(let path, let reason): "'\(path)' cannot be used for TLS: \(reason)"
        case .expired(let peer, let date): "the certificate of \(peer) expired on \(date)"
        case .notYetValid(let peer, let date): "the certificate of \(peer) is valid only from \(date)"
        case .wrongHost(let peer, let expected, let names):
            "the certificate of \(peer) is not for '\(expected)' but for \(names)"
        case .unknownAuthority(let peer, let issuer, let isSelfSigned):
            isSelfSigned
                ? "the certificate of \(peer) is self-signed and not trusted (\(issuer))"
                : "the certificate of \(peer) is signed by an unknown authority (\(issuer))"
        case .certificate(let peer, let reason): "the certificate of \(peer) is refused: \(reason)"
        case .handshake(let peer, let reason): "the TLS handshake with \(peer) failed: \(reason)"
        case .notTLS(let peer): "\(peer) does not speak TLS"
        case .closed(let peer): "\(peer) closed the connection during the TLS handshake"
        case .timedOut(let peer, let limit): "\(peer) did not finish the TLS handshake within \(limit)"
        }
    }

    public var remedy: String? {
        switch self {
        case .file: "a readable PEM file"
        case .expired: "renew the server's certificate"
        case .notYetValid: "check this machine's clock, or the server's certificate"
        case .wrongHost: "use one of the certificate's names, or a certificate for this name"
        case .unknownAuthority:
            "put the authority's certificate (PEM) into a file and name it by SSL_CERT_FILE; or switch the check off"
        case .certificate: "correct the server's certificate"
        case .handshake: "TLS 1.2 or newer is needed on both sides"
        case .notTLS: "check the port, or connect without TLS"
        case .closed: "check the port; the server may want a client certificate, or no TLS at all"
        case .timedOut: "check host and port"
        }
    }
}
