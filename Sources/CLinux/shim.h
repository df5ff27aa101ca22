#pragma once
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

// openat2 has no wrapper in the C library. The path cannot leave the folder, not by "..", not by a link.
static inline int andiron_open_beneath(int folder, const char *path, int flags, unsigned mode) {
    struct open_how how = {.flags = (unsigned)flags | O_CLOEXEC, .mode = mode, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long result = syscall(SYS_openat2, folder, path, &how, sizeof how);
    if (result < 0 && errno == ENOSYS) return openat(folder, path, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    return (int)result;
}
// F_SETLEASE is declared only under _GNU_SOURCE, and fcntl is variadic. 1024 is F_SETLEASE.
// A writer that wants the file is announced by SIGIO, which would end the process; the lease is given back in time anyway.
static inline int andiron_take_read_lease(int descriptor) {
    signal(SIGIO, SIG_IGN);
    return fcntl(descriptor, 1024, F_RDLCK);
}
static inline int andiron_release_lease(int descriptor) { return fcntl(descriptor, 1024, F_UNLCK); }
// A function and a struct of one name: Swift cannot call the function.
static inline unsigned long andiron_file_system_kind(const char *path) {
    struct statfs information;
    return statfs(path, &information) == 0 ? (unsigned long)information.f_type & 0xFFFFFFFF : 0;
}
