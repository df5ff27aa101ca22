/// TLS on one connection: OpenSSL between two memory buffers, without I/O of its own.
internal import COpenSSL
internal import Glibc

/// Turns plain bytes into records and back.
@EventLoop
final class TLSSession {
    enum Step {
        /// It cannot go on before the peer has said more.
        case needsMore
        case established
        case failed(TLSError)
    }

    enum Reading {
        /// So many plain bytes are in the memory given.
        case bytes(Int)
        case needsMore
        /// The peer said that nothing will follow.
        case ended
        /// OpenSSL's words.
        case failed(String)
    }

    private let ssl: OpaquePointer
    private let input: OpaquePointer
    private let output: OpaquePointer
    private let context: TLSContext
    let peer: String
    private let expectedName: String?
    private(set) var isEstablished = false
    private(set) var hasSaidGoodbye = false
    private var refusal: TLSError?
    /// Who reads the plain bytes. Delivery may come at the end of a turn in which the stream's owner went away.
    weak var reader: (any ByteStreamReader)?
    private var finished: (@EventLoop (TLSError?) -> Void)?

    /// Plain bytes that one call of OpenSSL takes; its output then stays small.
    private static let pieceByteCount = 1 << 16

    /// - Parameters:
    ///   - peer: for messages.
    ///   - serverName: the name to ask for and to find in the certificate; nil on the server's side.
    init?(context: TLSContext, peer: String, serverName: String?) {
        guard let ssl = SSL_new(context.raw) else { return nil }
        guard let input = BIO_new(BIO_s_mem()), let output = BIO_new(BIO_s_mem()) else {
            SSL_free(ssl)
            return nil
        }
        andiron_bio_never_ends(input)
        andiron_bio_never_ends(output)
        SSL_set_bio(ssl, input, output)
        self.ssl = ssl
        self.input = input
        self.output = output
        self.context = context
        self.peer = peer
        expectedName = serverName
        // SAFETY: the session owns the SSL object and calls it only while it lives.
        _ = andiron_tls_set_data(ssl, Unmanaged.passUnretained(self).toOpaque())
        if context.isServer {
            SSL_set_accept_state(ssl)
        } else {
            SSL_set_connect_state(ssl)
            if let serverName { expect(serverName) }
        }
    }

    isolated deinit { SSL_free(ssl) }

    private func expect(_ name: String) {
        if X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1 { return }
        _ = andiron_tls_server_name(ssl, name)
        SSL_set_hostflags(ssl, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
        SSL_set1_host(ssl, name)
    }

    /// `TLSv1.3` or `TLSv1.2`.
    var version: String { String(cString: SSL_get_version(ssl)) }

    /// Has `finished` called with the outcome of the handshake.
    func whenFinished(_ finished: @escaping @EventLoop (TLSError?) -> Void) { self.finished = finished }

    /// Reports the outcome of the handshake; only the first counts.
    func finish(_ error: TLSError?) {
        let done = finished
        finished = nil
        done?(error)
    }

    // MARK: Bytes

    /// Takes bytes from the peer.
    func feed(_ bytes: UnsafeRawBufferPointer) {
        BIO_write(input, bytes.baseAddress, Int32(bytes.count))
    }

    /// Goes on with the handshake.
    func advance() -> Step {
        ERR_clear_error()
        let status = SSL_do_handshake(ssl)
        if status == 1 {
            isEstablished = true
            return .established
        }
        let kind = SSL_get_error(ssl, status)
        if kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE { return .needsMore }
        if let refusal { return .failed(refusal) }
        let code = ERR_peek_error()
        let reason = andiron_error_reason(code)
        if andiron_error_library(code) == ERR_LIB_SSL,
            reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST
                || reason == SSL_R_PACKET_LENGTH_TOO_LONG
        {
            _ = TLSContext.takeErrors()
            return .failed(.notTLS(peer: peer))
        }
        return .failed(.handshake(peer: peer, reason: TLSContext.takeErrors()))
    }

    /// Plain bytes that have arrived.
    func read(into memory: UnsafeMutableRawBufferPointer) -> Reading {
        ERR_clear_error()
        let count = SSL_read(ssl, memory.baseAddress, Int32(min(memory.count, Int(Int32.max))))
        if count > 0 { return .bytes(Int(count)) }
        switch SSL_get_error(ssl, count) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .needsMore
        case SSL_ERROR_ZERO_RETURN: return .ended
        default: return .failed(TLSContext.takeErrors())
        }
    }

    /// Turns plain bytes into records of ``withOutput(_:)``.
    func seal(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                let piece = UnsafeRawBufferPointer(
                    rebasing: bytes[offset..<min(bytes.count, offset + Self.pieceByteCount)])
                let written = SSL_write(ssl, piece.baseAddress, Int32(piece.count))
                guard written > 0 else { return ERR_clear_error() }
                offset += Int(written)
            }
        }
    }

    /// Tells the peer that nothing will follow.
    func sayGoodbye() {
        guard isEstablished, !hasSaidGoodbye else { return }
        hasSaidGoodbye = true
        if SSL_shutdown(ssl) < 0 { ERR_clear_error() }
    }

    /// Whether there are records to send.
    var hasOutput: Bool { BIO_ctrl_pending(output) > 0 }

    /// Lends the records to send, and forgets them.
    func withOutput(_ body: (UnsafeRawBufferPointer) -> Void) {
        var start: UnsafeMutablePointer<CChar>?
        let count = andiron_bio_contents(output, &start)
        guard count > 0 else { return }
        body(UnsafeRawBufferPointer(start: start, count: count))
        andiron_bio_empty(output)
    }

    // MARK: The peer's certificate

    /// OpenSSL asks for each certificate of the chain; what is refused is remembered in words.
    nonisolated static let verifying: @convention(c) (Int32, OpaquePointer?) -> Int32 = { isFine, store in
        guard isFine == 0, let store, let ssl = andiron_tls_of(store), let data = andiron_tls_data(ssl) else {
            return isFine
        }
        let chain = Unchecked(value: store)
        // SAFETY: the session calls OpenSSL, so it lives, and is on the loop.
        let me = Unmanaged<TLSSession>.fromOpaque(data).takeUnretainedValue()
        return EventLoop.assumeIsolated {
            if me.context.verifiesPeer { me.refuse(chain.value) }
            return me.context.verifiesPeer ? 0 : 1
        }
    }

    private func refuse(_ store: OpaquePointer) {
        let certificate = X509_STORE_CTX_get_current_cert(store)
        switch X509_STORE_CTX_get_error(store) {
        case X509_V_ERR_CERT_HAS_EXPIRED:
            refusal = .expired(peer: peer, date: Self.text { ASN1_TIME_print($0, X509_get0_notAfter(certificate)) })
        case X509_V_ERR_CERT_NOT_YET_VALID:
            refusal = .notYetValid(
                peer: peer, date: Self.text { ASN1_TIME_print($0, X509_get0_notBefore(certificate)) })
        case X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH:
            refusal = .wrongHost(peer: peer, expected: expectedName ?? "", names: Self.names(of: certificate))
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
            let isLeaf = X509_STORE_CTX_get_error_depth(store) == 0
            refusal = .unknownAuthority(peer: peer, issuer: Self.issuer(of: certificate), isSelfSigned: isLeaf)
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
            X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
            refusal = .unknownAuthority(peer: peer, issuer: Self.issuer(of: certificate), isSelfSigned: false)
        case let other:
            refusal = .certificate(peer: peer, reason: String(cString: X509_verify_cert_error_string(Int(other))))
        }
    }

    private static func issuer(of certificate: OpaquePointer?) -> String {
        text { andiron_name_print($0, X509_get_issuer_name(certificate)) }
    }

    /// The names in a certificate, as OpenSSL writes them: `DNS:a.example, IP Address:127.0.0.1`.
    private static func names(of certificate: OpaquePointer?) -> String {
        let index = X509_get_ext_by_NID(certificate, NID_subject_alt_name, -1)
        guard index >= 0, let names = X509_get_ext(certificate, index) else {
            return text { andiron_name_print($0, X509_get_subject_name(certificate)) }
        }
        return text { X509V3_EXT_print($0, names, 0, 0) }
    }

    private static func text(_ print: (OpaquePointer) -> Int32) -> String {
        guard let memory = BIO_new(BIO_s_mem()) else { return "" }
        defer { BIO_free(memory) }
        _ = print(memory)
        var start: UnsafeMutablePointer<CChar>?
        let count = andiron_bio_contents(memory, &start)
        return String(decoding: UnsafeRawBufferPointer(start: start, count: max(0, count)), as: UTF8.self)
    }
}
