#pragma once
// The one-shot SHA-256 calls are marked deprecated in favour of a dearer interface; they are not going away.
#define OPENSSL_SUPPRESS_DEPRECATED 1
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

// What OpenSSL offers as macros, which Swift does not see.
static inline long andiron_tls_minimum(SSL_CTX *context) {
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
}
static inline void andiron_tls_modes(SSL_CTX *context) {
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
}
static inline long andiron_tls_server_name(SSL *ssl, const char *name) { return SSL_set_tlsext_host_name(ssl, name); }
static inline SSL *andiron_tls_of(X509_STORE_CTX *store) {
    return (SSL *)X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
}
static inline int andiron_tls_set_data(SSL *ssl, void *data) { return SSL_set_app_data(ssl, data); }
static inline void *andiron_tls_data(const SSL *ssl) { return SSL_get_app_data(ssl); }
static inline long andiron_bio_contents(BIO *bio, char **start) { return BIO_get_mem_data(bio, start); }
static inline void andiron_bio_empty(BIO *bio) { (void)BIO_reset(bio); }
static inline void andiron_bio_never_ends(BIO *bio) { BIO_set_mem_eof_return(bio, -1); }
static inline int andiron_error_library(unsigned long code) { return ERR_GET_LIB(code); }
static inline int andiron_error_reason(unsigned long code) { return ERR_GET_REASON(code); }
static inline int andiron_name_print(BIO *bio, const X509_NAME *name) { return X509_NAME_print_ex(bio, name, 0, XN_FLAG_ONELINE); }
static inline EVP_PKEY *andiron_new_rsa_key(void) { return EVP_RSA_gen(2048); }
