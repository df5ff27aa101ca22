#pragma once
#include <archive.h>
#include <archive_entry.h>
#include <zlib.h>
#include <zstd.h>
#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <unistd.h>

// openat2 has no wrapper in glibc; syscall() is variadic, which Swift cannot call. RESOLVE_BENEATH and its
// like are macros of another type than Swift wants.
long syscall(long number, ...);
static inline int andiron_open_without_links(int root, const char *path, int flags, unsigned mode) {
    struct open_how how = {.flags = (unsigned long long)flags,
                           .mode = mode,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}
// ISA-L's state is 80 KB with arrays that Swift would copy; it stays behind a pointer. It inflates more than twice as fast as zlib.
static inline struct inflate_state *andiron_inflate_new(void) {
    struct inflate_state *state = malloc(sizeof *state);
    if (state) isal_inflate_init(state), state->crc_flag = ISAL_GZIP;
    return state;
}
static inline void andiron_inflate_again(struct inflate_state *state) { isal_inflate_reset(state), state->crc_flag = ISAL_GZIP; }
static inline void andiron_inflate_free(struct inflate_state *state) { free(state); }
// Inflates; `taken` and `made` are what was read and written. 1 at the end of a member, 0 otherwise, -1 for damaged data.
static inline int andiron_inflate(struct inflate_state *state, const unsigned char *input, unsigned input_size, unsigned char *output,
                                  unsigned output_size, unsigned *taken, unsigned *made) {
    state->next_in = (unsigned char *)input, state->avail_in = input_size;
    state->next_out = output, state->avail_out = output_size;
    int result = isal_inflate(state);
    *taken = input_size - state->avail_in, *made = output_size - state->avail_out;
    if (result < 0) return -1;
    return state->block_state == ISAL_BLOCK_FINISH;
}
// deflateInit2 is a macro.
static inline int andiron_deflate_gzip(z_stream *stream, int level) { return deflateInit2(stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY); }
// The locale of one thread: libarchive turns names of archives into the current locale's, which must be UTF-8.
// uselocale is declared only under _GNU_SOURCE or POSIX 2008, which must not be set here.
static inline locale_t andiron_utf8_locale(void) { return newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); }
static inline void andiron_use_locale(locale_t locale) { uselocale(locale); }
// syncfs is declared only under _GNU_SOURCE.
static inline int andiron_sync_file_system(int descriptor) { return (int)syscall(SYS_syncfs, descriptor); }
// FICLONE of linux/fs.h: a copy that shares its blocks until one side is written; not every file system can.
static inline int andiron_share_blocks(int to, int from) { return ioctl(to, _IOW(0x94, 9, int), from); }
// `chattr +T`. The calls are variadic, and their numbers macros that Swift does not import.
static inline int andiron_mark_top_of_hierarchies(int folder) {
    int flags = 0;
    if (ioctl(folder, FS_IOC_GETFLAGS, &flags) != 0) return -1;
    if (flags & FS_TOPDIR_FL) return 0;
    flags |= FS_TOPDIR_FL;
    return ioctl(folder, FS_IOC_SETFLAGS, &flags);
}
