#pragma once
#include <archive.h>
#include <archive_entry.h>
#include <zlib.h>
#include <zstd.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <linux/openat2.h>
#include <unistd.h>

// openat2 has no wrapper in glibc; syscall() is variadic, which Swift cannot call. RESOLVE_BENEATH and its
// like are macros of another type than Swift wants.
long syscall(long number, ...);
static inline int andiron_open_beneath(int root, const char *path, int flags) {
    struct open_how how = {.flags = (unsigned long long)flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}
// inflateInit2 and deflateInit2 are macros.
static inline int andiron_inflate_gzip(z_stream *stream) { return inflateInit2(stream, 15 + 16); }
static inline int andiron_deflate_gzip(z_stream *stream, int level) { return deflateInit2(stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY); }
// The locale of one thread: libarchive turns names of archives into the current locale's, which must be UTF-8.
// uselocale is declared only under _GNU_SOURCE or POSIX 2008, which must not be set here.
static inline locale_t andiron_utf8_locale(void) { return newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); }
static inline void andiron_use_locale(locale_t locale) { uselocale(locale); }
// syncfs is declared only under _GNU_SOURCE.
static inline int andiron_sync_file_system(int descriptor) { return (int)syscall(SYS_syncfs, descriptor); }
