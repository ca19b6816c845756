/* Preloaded into a process: lets the n-th system call that changes something below a folder fail, or die there.

   Every library of the process goes through the C library, so this reaches the writes of pandas, matplotlib, pyarrow and
   the rest alike. Armed by tests/support/faults.py; until then, and for everything outside the folder, calls pass. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long fatal_call, n_calls;
static int number, goes_on;

void fault_arm(const char *path, long call, int error, int for_good) {
    fatal_call = call, number = error, goes_on = for_good, n_calls = 0;
    strncpy(folder, path, sizeof folder - 1);
}

long fault_count(void) { return n_calls; }

static int is_below(const char *path) { return !strncmp(path, folder, strlen(folder)); }

/* Counts one call; 1 if it has to fail. A full disk refuses what needs room (takes_room), for good. */
static int fails(int concerns_folder, int takes_room) {
    if (!folder[0] || !concerns_folder) return 0;
    long call = __sync_fetch_and_add(&n_calls, 1);
    if (call != fatal_call && !(goes_on && takes_room && call > fatal_call)) return 0;
    if (!number) kill(getpid(), SIGKILL);
    errno = number;
    return 1;
}

static int path_fails(int at, const char *path, int takes_room) {
    char whole[2 * PATH_MAX], base[PATH_MAX];
    if (!folder[0]) return 0;
    if (path[0] == '/') return fails(is_below(path), takes_room);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t n = readlink(at == AT_FDCWD ? "/proc/self/cwd" : link, base, sizeof base - 1);
    if (n < 0) return 0;
    base[n] = 0;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return fails(is_below(whole), takes_room);
}

static int file_fails(int file) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails(is_below(path), 1);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(function, head, at, ...) \
    int function head { \
        int mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); } \
        REAL(int, #function, __VA_ARGS__); \
        if ((flags & (O_CREAT | O_WRONLY | O_RDWR)) && path_fails(at, path, 1)) return -1; \
        OPEN_CALL_##function; \
    }
#define OPEN_CALL_open return real(path, flags, mode)
#define OPEN_CALL_open64 return real(path, flags, mode)
#define OPEN_CALL_openat return real(at, path, flags, mode)
#define OPEN_CALL_openat64 return real(at, path, flags, mode)
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, const char *, int, ...)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, const char *, int, ...)
OPEN(openat, (int at, const char *path, int flags, ...), at, int, const char *, int, ...)
OPEN(openat64, (int at, const char *path, int flags, ...), at, int, const char *, int, ...)

#define STREAM(function) \
    FILE *function(const char *path, const char *mode) { \
        REAL(FILE *, #function, const char *, const char *); \
        return mode[0] != 'r' && path_fails(AT_FDCWD, path, 1) ? NULL : real(path, mode); \
    }
STREAM(fopen)
STREAM(fopen64)

#define ON_FILE(type, function, head, call, ...) \
    type function head { \
        REAL(type, #function, __VA_ARGS__); \
        return file_fails(file) ? -1 : real call; \
    }
ON_FILE(ssize_t, write, (int file, const void *data, size_t n), (file, data, n), int, const void *, size_t)
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t n, off_t at), (file, data, n, at), int, const void *, size_t, off_t)
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t n, off64_t at), (file, data, n, at), int, const void *, size_t, off64_t)
ON_FILE(ssize_t, writev, (int file, const struct iovec *data, int n), (file, data, n), int, const struct iovec *, int)
ON_FILE(int, ftruncate, (int file, off_t n), (file, n), int, off_t)
ON_FILE(int, ftruncate64, (int file, off64_t n), (file, n), int, off64_t)
ON_FILE(int, fsync, (int file), (file), int)
ON_FILE(int, fdatasync, (int file), (file), int)

#define ON_PATH(function, takes_room, at, head, call, ...) \
    int function head { \
        REAL(int, #function, __VA_ARGS__); \
        return path_fails(at, path, takes_room) ? -1 : real call; \
    }
ON_PATH(mkdir, 1, AT_FDCWD, (const char *path, mode_t mode), (path, mode), const char *, mode_t)
ON_PATH(unlink, 0, AT_FDCWD, (const char *path), (path), const char *)
ON_PATH(rmdir, 0, AT_FDCWD, (const char *path), (path), const char *)
ON_PATH(link, 1, AT_FDCWD, (const char *from, const char *path), (from, path), const char *, const char *)
ON_PATH(rename, 0, AT_FDCWD, (const char *from, const char *path), (from, path), const char *, const char *)
ON_PATH(mkdirat, 1, at, (int at, const char *path, mode_t mode), (at, path, mode), int, const char *, mode_t)
ON_PATH(unlinkat, 0, at, (int at, const char *path, int flags), (at, path, flags), int, const char *, int)
ON_PATH(linkat, 1, at, (int b, const char *from, int at, const char *path, int flags), (b, from, at, path, flags), int, const char *, int, const char *, int)
ON_PATH(renameat, 0, at, (int b, const char *from, int at, const char *path), (b, from, at, path), int, const char *, int, const char *)
ON_PATH(renameat2, 0, at, (int b, const char *from, int at, const char *path, unsigned flags), (b, from, at, path, flags), int, const char *, int, const char *, unsigned)
