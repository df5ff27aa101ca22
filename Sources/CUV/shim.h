#pragma once
#include <uv.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

// memfd_create is declared only under _GNU_SOURCE, which must not be set: it changes types that Swift's
// Glibc module has imported without it. 1 is MFD_CLOEXEC.
int memfd_create(const char *name, unsigned int flags);
static inline int andiron_memfd_create(const char *name) { return memfd_create(name, 1); }
// The handle types derive from uv_handle_t by C layout; Swift cannot see that, a cast can.
static inline uv_handle_t *andiron_handle(void *handle) { return (uv_handle_t *)handle; }
static inline uv_stream_t *andiron_stream(void *handle) { return (uv_stream_t *)handle; }
// A C enumeration with flags arrives in Swift without its integer operators.
static inline void andiron_spawn_flags(uv_process_options_t *options, unsigned int flags) { options->flags = flags; }
static inline void andiron_stdio(uv_stdio_container_t *slot, int flags, uv_stream_t *stream, int fd) {
    slot->flags = (uv_stdio_flags)flags;
    if (stream) slot->data.stream = stream; else slot->data.fd = fd;
}
