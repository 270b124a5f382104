/* Preloaded into a process, counts the system calls that change files below a folder, and at a chosen
 * one kills the process before it, or lets it fail. What is counted: creating, writing, syncing,
 * renaming, removing. See test_crash.py.
 *
 *   crash_arm(folder, number, error)   error 0: SIGKILL, else errno; number 0: only count
 *   crash_count()                      calls since then
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long target, count;
static int failure;

void crash_arm(const char *path, long number, int error) {
  snprintf(folder, sizeof folder, "%s", path);
  target = number;
  failure = error;
  count = 0;
}

long crash_count(void) { return count; }

static int below(int dir, const char *path) {
  char full[2 * PATH_MAX], base[PATH_MAX], link[64];
  if (!folder[0]) return 0;
  if (path && path[0] == '/') return !strncmp(path, folder, strlen(folder));
  if (dir == AT_FDCWD) {
    if (!getcwd(base, sizeof base)) return 0;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t length = readlink(link, base, sizeof base - 1);
    if (length < 0) return 0;
    base[length] = 0;
  }
  if (path) snprintf(full, sizeof full, "%s/%s", base, path);
  else snprintf(full, sizeof full, "%s", base);
  return !strncmp(full, folder, strlen(folder));
}

/* Returns whether the call must fail; does not return where it must kill. */
static int point(int inside) {
  if (!inside) return 0;
  long now = __sync_add_and_fetch(&count, 1);
  if (!target || now != target) return 0;
  if (!failure) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  errno = failure;
  return 1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define CHANGES(flags) ((flags) & (O_CREAT | O_TRUNC))

#define OPENER(name) \
  int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    REAL(name); \
    if (CHANGES(flags) && point(below(AT_FDCWD, path))) return -1; \
    return real(path, flags, mode); \
  }
OPENER(open)
OPENER(open64)

#define OPENER_AT(name) \
  int name(int dir, const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    REAL(name); \
    if (CHANGES(flags) && point(below(dir, path))) return -1; \
    return real(dir, path, flags, mode); \
  }
OPENER_AT(openat)
OPENER_AT(openat64)

#define STREAM(name) \
  FILE *name(const char *path, const char *mode) { \
    REAL(name); \
    if (strpbrk(mode, "wa+") && point(below(AT_FDCWD, path))) return NULL; \
    return real(path, mode); \
  }
STREAM(fopen)
STREAM(fopen64)

#define BY_FILE(type, name, declared, passed) \
  type name declared { REAL(name); if (point(below(fd, NULL))) return -1; return real passed; }
BY_FILE(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
BY_FILE(ssize_t, writev, (int fd, const struct iovec *data, int parts), (fd, data, parts))
BY_FILE(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
BY_FILE(int, fsync, (int fd), (fd))
BY_FILE(int, fdatasync, (int fd), (fd))
BY_FILE(int, ftruncate, (int fd, off_t size), (fd, size))

#define BY_PATH(name, declared, dir, path, passed) \
  int name declared { REAL(name); if (point(below(dir, path))) return -1; return real passed; }
BY_PATH(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
BY_PATH(mkdirat, (int dir, const char *path, mode_t mode), dir, path, (dir, path, mode))
BY_PATH(rmdir, (const char *path), AT_FDCWD, path, (path))
BY_PATH(unlink, (const char *path), AT_FDCWD, path, (path))
BY_PATH(unlinkat, (int dir, const char *path, int flags), dir, path, (dir, path, flags))
BY_PATH(rename, (const char *from, const char *to), AT_FDCWD, from, (from, to))
BY_PATH(renameat, (int d1, const char *from, int d2, const char *to), d1, from, (d1, from, d2, to))
BY_PATH(renameat2, (int d1, const char *from, int d2, const char *to, unsigned flags), d1, from,
        (d1, from, d2, to, flags))
BY_PATH(link, (const char *from, const char *to), AT_FDCWD, to, (from, to))
BY_PATH(linkat, (int d1, const char *from, int d2, const char *to, int flags), d2, to,
        (d1, from, d2, to, flags))
BY_PATH(chmod, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
