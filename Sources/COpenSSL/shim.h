#pragma once
// The one-shot SHA-256 calls are marked deprecated in favour of a dearer interface; they are not going away.
#define OPENSSL_SUPPRESS_DEPRECATED 1
#include <openssl/crypto.h>
#include <openssl/sha.h>
