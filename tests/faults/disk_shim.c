/* Writes down what a process does to the files below FAULTS_ROOT, and makes some of it fail.
 *
 * Loaded with LD_PRELOAD. Each write, truncation, sync, creation, rename and removal becomes an entry of the file
 * FAULTS_JOURNAL, in the order in which they happened; `journal.py` reads it and makes the disk that a power cut at any
 * of them could have left. Files that are written through stdio (FAISS, NumPy) go around this library: of them, a sync
 * writes the whole content down.
 *
 * FAULTS_FAIL names a file. While it exists, it holds "ERRNO FIRST COUNT NAME": of the writes and syncs to files whose
 * name contains NAME, COUNT beginning with the one numbered FIRST fail with that errno; errno 0 writes only a half.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536
static char *paths[FDS];
static int journal = -1;
static char root[4096];
static const char *fail_file;
static uint64_t failing_seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct entry {
    char type;
    uint16_t path_length, other_length;
    uint64_t offset;
    uint32_t length;
} __attribute__((packed));

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("FAULTS_ROOT"), *to = getenv("FAULTS_JOURNAL");
    fail_file = getenv("FAULTS_FAIL");
    if (at && to && realpath(at, root))
        journal = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void note(char type, const char *path, const char *other, uint64_t offset, const void *data, size_t length) {
    struct entry head = {type, strlen(path), other ? strlen(other) : 0, offset, length};
    struct iovec parts[4] = {{&head, sizeof head},
                             {(void *)path, head.path_length},
                             {(void *)(other ? other : ""), head.other_length},
                             {(void *)(data ? data : ""), data ? length : 0}};
    if (!data && type != 'T') head.length = 0;
    pthread_mutex_lock(&lock);
    if (syscall(SYS_writev, journal, parts, 4) < 0) abort();
    pthread_mutex_unlock(&lock);
}

/* Returns the path below the root, or NULL for a file elsewhere. */
static char *below_root(int directory, const char *path) {
    char folder[4096], whole[8192], link[64];
    if (journal < 0 || !path) return NULL;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        if (directory == AT_FDCWD) {
            if (!getcwd(folder, sizeof folder)) return NULL;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, folder, sizeof folder - 1);
            if (length < 0) return NULL;
            folder[length] = 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", folder, path);
    }
    size_t length = strlen(root);
    if (strncmp(whole, root, length) || (whole[length] != '/' && whole[length] != 0)) return NULL;
    return strdup(whole[length] ? whole + length + 1 : ".");
}

static char *known(int fd) { return fd >= 0 && fd < FDS ? paths[fd] : NULL; }

/* Returns whether a call on this file is to fail, and sets errno; *half says that only a half is to be written. */
static int fails(const char *path, int *half) {
    int code = 0, hit = 0;
    unsigned long long first = 0, count = 0;
    char name[256] = "", text[512];
    *half = 0;
    if (!fail_file) return 0;
    int fd = syscall(SYS_openat, AT_FDCWD, fail_file, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length <= 0) return 0;
    text[length] = 0;
    if (sscanf(text, "%d %llu %llu %255s", &code, &first, &count, name) < 3 || !strstr(path, name)) return 0;
    pthread_mutex_lock(&lock);
    failing_seen++;
    hit = failing_seen >= first && failing_seen < first + count;
    pthread_mutex_unlock(&lock);
    if (!hit) return 0;
    if (code == 0) {
        *half = 1;
        return 0;
    }
    errno = code;
    return 1;
}

#define REAL(name) \
    static typeof(name) *real; \
    if (!real) real = (typeof(name) *)dlsym(RTLD_NEXT, #name)

static int opened(int fd, int directory, const char *path, int flags, int existed) {
    if (fd < 0 || fd >= FDS) return fd;
    char *kept = below_root(directory, path);
    free(paths[fd]);
    paths[fd] = kept;
    if (kept && (flags & O_CREAT) && !existed) note('C', kept, NULL, 0, NULL, 0);
    if (kept && (flags & O_TRUNC) && existed) note('T', kept, NULL, 0, NULL, 0);
    return fd;
}

static int exists(int directory, const char *path) { return !faccessat(directory, path, F_OK, 0); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        int existed = (flags & O_CREAT) ? exists(AT_FDCWD, path) : 1; \
        return opened(real(path, flags, mode), AT_FDCWD, path, flags, existed); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int directory, const char *path, int flags, ...) { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        int existed = (flags & O_CREAT) ? exists(directory, path) : 1; \
        return opened(real(directory, path, flags, mode), directory, path, flags, existed); \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    REAL(close);
    if (known(fd)) { free(paths[fd]); paths[fd] = NULL; }
    return real(fd);
}

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    char *path = known(fd);
    int half;
    if (!path) return real(fd, data, length);
    if (fails(path, &half)) return -1;
    if (half && length > 1) length /= 2;
    off_t at = (fcntl(fd, F_GETFL) & O_APPEND) ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t written = real(fd, data, length);
    if (written > 0) note('W', path, NULL, at, data, written);
    return written;
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t length, offset_type at) { \
        REAL(name); \
        char *path = known(fd); \
        int half; \
        if (!path) return real(fd, data, length, at); \
        if (fails(path, &half)) return -1; \
        if (half && length > 1) length /= 2; \
        ssize_t written = real(fd, data, length, at); \
        if (written > 0) note('W', path, NULL, at, data, written); \
        return written; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, size_type) \
    int name(int fd, size_type size) { \
        REAL(name); \
        int done = real(fd, size); \
        if (!done && known(fd)) note('T', known(fd), NULL, size, NULL, 0); \
        return done; \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

static void synced(int fd, const char *path) {
    struct stat about;
    if (!fstat(fd, &about) && S_ISDIR(about.st_mode)) { note('D', path, NULL, 0, NULL, 0); return; }
    if (strstr(path, ".sqlite3")) { note('S', path, NULL, 0, NULL, 0); return; }
    /* Written through stdio perhaps: take the content as it is. */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int again = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
    char *content = malloc(about.st_size + 1);
    ssize_t length = again >= 0 ? pread(again, content, about.st_size, 0) : -1;
    if (again >= 0) syscall(SYS_close, again);
    if (length >= 0) note('F', path, NULL, 0, content, length);
    free(content);
}

#define SYNC(name) \
    int name(int fd) { \
        REAL(name); \
        char *path = known(fd); \
        int half; \
        if (!path) return real(fd); \
        if (fails(path, &half)) return -1; \
        int done = real(fd); \
        if (!done) synced(fd, path); \
        return done; \
    }
SYNC(fsync)
SYNC(fdatasync)

static int moved(int done, int from_directory, const char *from, int to_directory, const char *to) {
    char *source = done ? NULL : below_root(from_directory, from), *target = done ? NULL : below_root(to_directory, to);
    if (source && target) note('R', source, target, 0, NULL, 0);
    free(source);
    free(target);
    return done;
}
int rename(const char *from, const char *to) {
    REAL(rename);
    return moved(real(from, to), AT_FDCWD, from, AT_FDCWD, to);
}
int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    REAL(renameat);
    return moved(real(from_directory, from, to_directory, to), from_directory, from, to_directory, to);
}

static int removed(int done, int directory, const char *path) {
    char *gone = done ? NULL : below_root(directory, path);
    if (gone) note('U', gone, NULL, 0, NULL, 0);
    free(gone);
    return done;
}
int unlink(const char *path) {
    REAL(unlink);
    return removed(real(path), AT_FDCWD, path);
}
int unlinkat(int directory, const char *path, int flags) {
    REAL(unlinkat);
    return removed(real(directory, path, flags), directory, path);
}
int rmdir(const char *path) {
    REAL(rmdir);
    return removed(real(path), AT_FDCWD, path);
}

static int made(int done, int directory, const char *path) {
    char *folder = done ? NULL : below_root(directory, path);
    if (folder) note('M', folder, NULL, 0, NULL, 0);
    free(folder);
    return done;
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return made(real(path, mode), AT_FDCWD, path);
}
int mkdirat(int directory, const char *path, mode_t mode) {
    REAL(mkdirat);
    return made(real(directory, path, mode), directory, path);
}
