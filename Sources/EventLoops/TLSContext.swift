/// The settings of one side of TLS, read once and shared by its connections.
internal import COpenSSL
internal import Glibc

/// What a client trusts, and how it shows itself.
public struct TLSClientSettings: Sendable, Equatable {
    /// A PEM file of authorities to trust in place of the system's; nil: `SSL_CERT_FILE`, else the system's.
    public var authorityFile: String?
    /// False accepts any certificate, for self-signed ones on this machine.
    public var verifiesCertificate = true
    /// A PEM file with this side's own certificate chain, for servers that ask for one.
    public var certificateFile: String?
    /// Its private key.
    public var keyFile: String?

    public init(authorityFile: String? = nil, verifiesCertificate: Bool = true) {
        self.authorityFile = authorityFile
        self.verifiesCertificate = verifiesCertificate
    }
}

// SAFETY: an SSL_CTX counts its references and locks itself; it is not changed after init.
/// One side's settings as OpenSSL has them; reading the authorities takes some milliseconds, so it is kept.
public final class TLSContext: @unchecked Sendable {
    let raw: OpaquePointer
    let isServer: Bool
    let verifiesPeer: Bool

    /// The client's side.
    ///
    /// - Throws: ``TLSError/file(_:reason:)``.
    public init(client settings: TLSClientSettings) throws(TLSError) {
        raw = try Self.make(TLS_client_method())
        isServer = false
        verifiesPeer = settings.verifiesCertificate
        if let file = settings.authorityFile {
            guard SSL_CTX_load_verify_file(raw, file) == 1 else { throw Self.fileError(file) }
        } else if settings.verifiesCertificate {
            // A file named by SSL_CERT_FILE that cannot be read would leave nothing trusted, and no reason.
            if let file = getenv("SSL_CERT_FILE").map({ String(cString: $0) }), access(file, R_OK) != 0 {
                throw .file(file, reason: "SSL_CERT_FILE: \(String(cString: strerror(errno)))")
            }
            SSL_CTX_set_default_verify_paths(raw)
        }
        if let chain = settings.certificateFile { try use(chain: chain, key: settings.keyFile ?? chain) }
        SSL_CTX_set_verify(raw, verifiesPeer ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, TLSSession.verifying)
    }

    /// The server's side, with its certificate chain and key.
    ///
    /// - Parameter clientAuthorityFile: when given, clients must show a certificate of one of these authorities.
    /// - Throws: ``TLSError/file(_:reason:)``.
    public init(
        serverCertificateFile chain: String, keyFile key: String, clientAuthorityFile: String? = nil
    ) throws(TLSError) {
        raw = try Self.make(TLS_server_method())
        isServer = true
        verifiesPeer = clientAuthorityFile != nil
        try use(chain: chain, key: key)
        if let file = clientAuthorityFile {
            guard SSL_CTX_load_verify_file(raw, file) == 1 else { throw Self.fileError(file) }
            SSL_CTX_set_verify(raw, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, TLSSession.verifying)
        }
    }

    deinit { SSL_CTX_free(raw) }

    private static func make(_ method: OpaquePointer?) throws(TLSError) -> OpaquePointer {
        guard let context = SSL_CTX_new(method) else { throw .file("OpenSSL", reason: takeErrors()) }
        _ = andiron_tls_minimum(context)
        andiron_tls_modes(context)
        return context
    }

    private func use(chain: String, key: String) throws(TLSError) {
        guard SSL_CTX_use_certificate_chain_file(raw, chain) == 1 else { throw Self.fileError(chain) }
        guard SSL_CTX_use_PrivateKey_file(raw, key, SSL_FILETYPE_PEM) == 1 else {
            let error = ERR_peek_error()
            if andiron_error_library(error) == ERR_LIB_X509, andiron_error_reason(error) == X509_R_KEY_VALUES_MISMATCH {
                _ = Self.takeErrors()
                throw .file(key, reason: "it is not the key of the certificate in '\(chain)'")
            }
            throw Self.fileError(key)
        }
    }

    private static func fileError(_ path: String) -> TLSError {
        let reason = takeErrors()
        guard access(path, R_OK) == 0 else { return .file(path, reason: String(cString: strerror(errno))) }
        return .file(path, reason: reason)
    }

    /// OpenSSL's words for the calling thread's last errors, which are then forgotten.
    static func takeErrors() -> String {
        var words: [String] = []
        while case let code = ERR_get_error(), code != 0 {
            let text = ERR_reason_error_string(code).map { String(cString: $0) } ?? "error \(code)"
            if words.last != text { words.append(text) }
        }
        return words.isEmpty ? "unknown error" : words.joined(separator: ", ")
    }
}
