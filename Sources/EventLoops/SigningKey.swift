/// A key that signs for as long as the process lives, and a certificate by which others check that.
internal import COpenSSL

// SAFETY: a key is not changed after init; OpenSSL counts its references and locks them itself.
/// An RSA key of 2048 bits, made in memory; signatures are RSASSA-PKCS1-v1_5 with SHA-256 (RS256 of RFC 7518).
public final class SigningKey: @unchecked Sendable {
    private let key: OpaquePointer
    /// The certificate, signed by the key itself, in DER.
    public let certificate: [UInt8]

    /// How long the certificate is valid, in seconds: ten years.
    private static let lifetime = 3650 * 86400

    /// Makes a key, which takes a tenth of a second; nil when libcrypto has no memory or no random numbers.
    ///
    /// - Parameter name: the common name in the certificate.
    public init?(name: String) {
        guard let key = andiron_new_rsa_key() else { return nil }
        guard let certificate = Self.certificate(for: key, name) else {
            EVP_PKEY_free(key)
            return nil
        }
        self.key = key
        self.certificate = certificate
    }

    deinit { EVP_PKEY_free(key) }

    private static func certificate(for key: OpaquePointer, _ name: String) -> [UInt8]? {
        guard let certificate = X509_new() else { return nil }
        defer { X509_free(certificate) }
        X509_set_version(certificate, 2)
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1)
        X509_gmtime_adj(X509_getm_notBefore(certificate), -86400)
        X509_gmtime_adj(X509_getm_notAfter(certificate), lifetime)
        let subject = X509_get_subject_name(certificate)
        let text = Array(name.utf8)
        guard X509_set_pubkey(certificate, key) == 1,
            X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, text, Int32(text.count), -1, 0) == 1,
            X509_set_issuer_name(certificate, subject) == 1, X509_sign(certificate, key, EVP_sha256()) > 0
        else { return nil }
        var encoded: UnsafeMutablePointer<UInt8>?
        let count = i2d_X509(certificate, &encoded)
        guard count > 0, let encoded else { return nil }
        defer { CRYPTO_free(encoded, #file, #line) }
        return Array(UnsafeBufferPointer(start: encoded, count: Int(count)))
    }

    /// The signature of bytes; nil when libcrypto fails.
    public func sign(_ bytes: [UInt8]) -> [UInt8]? {
        guard let context = EVP_MD_CTX_new() else { return nil }
        defer { EVP_MD_CTX_free(context) }
        var count = 0
        guard EVP_DigestSignInit(context, nil, EVP_sha256(), nil, key) == 1,
            EVP_DigestSign(context, nil, &count, bytes, bytes.count) == 1
        else { return nil }
        var signature = [UInt8](repeating: 0, count: count)
        guard EVP_DigestSign(context, &signature, &count, bytes, bytes.count) == 1 else { return nil }
        return Array(signature.prefix(count))
    }
}
