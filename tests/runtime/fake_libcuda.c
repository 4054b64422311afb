// A libcuda that has no GPU: memory is the host's, launches do nothing, and every function fails when it is told to.
//   FAKE_CUDA_FAIL=cuMemAlloc_v2:2:700   the second and every later call of cuMemAlloc_v2 answers 700
//   FAKE_CUDA_FAIL=cuMemMap:2:700:3      the second call of cuMemMap and two after it
//   FAKE_CUDA_LOG=FILE                   counts of calls, written when the process ends
//   FAKE_CUDA_VMM=0                      a device without virtual memory management
//   FAKE_CUDA_LATE=1                     copies happen when somebody waits for the stream, and no sooner
// What is called wrongly answers 1 (invalid value). Who loads the library itself may call what begins with fake_ as well.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <fcntl.h>
#include <unistd.h>

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static char told[256];
static int sticky;

enum { KINDS = 64 };
static struct { const char *name; long calls; } counts[KINDS];

static void write_log(void) {
  const char *path = getenv("FAKE_CUDA_LOG");
  FILE *file = path ? fopen(path, "w") : NULL;
  for (int i = 0; file && i < KINDS && counts[i].name; i++) fprintf(file, "%s %ld\n", counts[i].name, counts[i].calls);
  if (file) fclose(file);
}

static int answered(const char *name) {
  int i = 0;
  static int registered = 0;
  if (!__atomic_exchange_n(&registered, 1, __ATOMIC_SEQ_CST)) atexit(write_log);
  while (i < KINDS && counts[i].name && strcmp(counts[i].name, name)) i++;
  counts[i].name = name;
  long calls = ++counts[i].calls;
  if (sticky) return sticky;
  const char *rule = *told ? told : getenv("FAKE_CUDA_FAIL");
  for (; rule && *rule; rule = strchr(rule, ',') ? strchr(rule, ',') + 1 : NULL) {
    char which[64];
    long from, code, times = 1l << 40;
    if (sscanf(rule, "%63[^:]:%ld:%ld:%ld", which, &from, &code, &times) >= 3 && !strcmp(which, name) && calls >= from && calls < from + times)
      return (int)code;
  }
  return 0;
}

static int answer(const char *name) {
  pthread_mutex_lock(&guard);
  int code = answered(name);
  pthread_mutex_unlock(&guard);
  return code;
}

// Which calls fail from now on, counted from 1 again.
void fake_fail(const char *rule) {
  pthread_mutex_lock(&guard);
  snprintf(told, sizeof told, "%s", *rule ? rule : "none");
  memset(counts, 0, sizeof counts);
  sticky = 0;
  pthread_mutex_unlock(&guard);
}

#define CALL(name) do { int code = answer(#name); if (code) return code; } while (0)
#define WANT(condition) do { if (!(condition)) return 1; } while (0)
static void *handle(void) { return malloc(16); }

int cuInit(unsigned flags) { CALL(cuInit); WANT(flags == 0); return 0; }
int cuDriverGetVersion(int *v) { CALL(cuDriverGetVersion); *v = 12040; return 0; }
int cuDeviceGetCount(int *n) { CALL(cuDeviceGetCount); *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { CALL(cuDeviceGet); if (i) return 101; *d = 0; return 0; }
int cuDeviceGetName(char *s, int n, int d) { CALL(cuDeviceGetName); snprintf(s, n, "Fake GPU"); return d; }
int cuDeviceGetUuid(char *u, int d) { CALL(cuDeviceGetUuid); memset(u, 7, 16); return d; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  CALL(cuDeviceGetAttribute);
  const char *sm = getenv("FAKE_CUDA_SM");
  int capability = sm ? atoi(sm) : 90;
  *v = a == 75 ? capability / 10 : a == 76 ? capability % 10 : a == 16 ? 132 : a == 13 ? 1830000 : a == 36 ? 3201000
     : a == 37 ? 6144 : a == 38 ? 62914560 : a == 97 ? 232448 : a == 102 ? !getenv("FAKE_CUDA_VMM") : -1;
  return *v < 0 ? 1 : d;
}
int cuDeviceTotalMem_v2(size_t *n, int d) { CALL(cuDeviceTotalMem_v2); *n = 1u << 30; return d; }
int cuDevicePrimaryCtxRetain(void **c, int d) { CALL(cuDevicePrimaryCtxRetain); *c = handle(); return d; }
int cuDevicePrimaryCtxRelease_v2(int d) { CALL(cuDevicePrimaryCtxRelease_v2); return d; }
int cuCtxSetCurrent(void *c) { CALL(cuCtxSetCurrent); WANT(c); return 0; }
int cuStreamCreate(void **s, unsigned flags) { CALL(cuStreamCreate); WANT(flags == 1); *s = handle(); return 0; }
// Virtual memory management in earnest: a file in memory is the device's, addresses are pages that cannot be touched until they are
// mapped and given access. Only what the driver API promises is done, all else is refused.
enum { ROWS = 1024 };
struct reservation { uint64_t at, bytes, raw, raw_bytes; };
struct handle { uint64_t bytes, offset, maps; int held; };
struct mapping { uint64_t at, bytes, handle; int access; };
static struct reservation reservations[ROWS];
static struct handle handles[1 << 20];
static struct mapping mappings[ROWS];
static uint64_t capacity = 1u << 30, granularity = 2u << 20, used, file_end, next_handle;
static int file = -1;

#define LOCKED(call) do { pthread_mutex_lock(&guard); int code_ = call; pthread_mutex_unlock(&guard); return code_; } while (0)
#define MULTIPLE(n) ((n) && (n) % granularity == 0)
struct location { int type, id; };
struct allocation { int type, handle_types; struct location at; void *windows; unsigned char flags[8]; };
struct access { struct location at; int flags; };

// A new device of so many bytes: what was taken of the last one is gone.
void fake_device(uint64_t bytes, uint64_t step) {
  for (int i = 0; i < ROWS; i++) if (reservations[i].bytes) munmap((void *)reservations[i].raw, reservations[i].raw_bytes);
  memset(reservations, 0, sizeof reservations), memset(mappings, 0, sizeof mappings);
  memset(handles, 0, (next_handle + 1) * sizeof *handles);
  if (file >= 0) close(file);
  file = -1, file_end = used = next_handle = sticky = 0, capacity = bytes, granularity = step;
}
// Physical bytes in use.
uint64_t fake_used(void) { return used; }
// Reservations and mappings.
uint64_t fake_rows(void) {
  uint64_t n = 0;
  for (int i = 0; i < ROWS; i++) n += !!reservations[i].bytes + !!mappings[i].bytes;
  return n;
}

static struct mapping *mapped_at(uint64_t at) {
  for (int i = 0; i < ROWS; i++)
    if (mappings[i].bytes && at >= mappings[i].at && at < mappings[i].at + mappings[i].bytes) return &mappings[i];
  return NULL;
}

static int is_reserved(uint64_t at, uint64_t bytes) {
  for (int i = 0; i < ROWS; i++)
    if (reservations[i].bytes && at >= reservations[i].at && at + bytes <= reservations[i].at + reservations[i].bytes) return 1;
  return 0;
}

// Whether a range consists of mappings, each of them whole where that is wanted.
static int covered(uint64_t at, uint64_t bytes, int whole, int access) {
  for (uint64_t end = at + bytes; at < end;) {
    struct mapping *m = mapped_at(at);
    if (!m || (whole && (m->at != at || m->at + m->bytes > end)) || (access && !m->access)) return 0;
    at = m->at + m->bytes;
  }
  return 1;
}

// The physical memory behind a range that may be touched: pieces of (handle, offset, bytes); 0 when any byte has none.
uint64_t fake_translate(uint64_t at, uint64_t bytes, uint64_t *pieces, uint64_t room) {
  uint64_t n = 0;
  pthread_mutex_lock(&guard);
  for (uint64_t end = at + bytes; at < end; n++) {
    struct mapping *m = mapped_at(at);
    if (!m || !m->access || n == room) { n = 0; break; }
    uint64_t stop = m->at + m->bytes < end ? m->at + m->bytes : end;
    pieces[3 * n] = m->handle, pieces[3 * n + 1] = at - m->at, pieces[3 * n + 2] = stop - at;
    at = stop;
  }
  pthread_mutex_unlock(&guard);
  return n;
}

static int right(const struct allocation *a) { return a->type == 1 && !a->handle_types && a->at.type == 1 && !a->at.id; }

static void let_go(struct handle *h) {
  if (h->held || h->maps) return;
  fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, h->offset, h->bytes);
  used -= h->bytes, h->bytes = 0;
}

static int reserve(uint64_t *p, uint64_t n, uint64_t align) {
  struct reservation *r = reservations;
  while (r < reservations + ROWS && r->bytes) r++;
  if (r == reservations + ROWS) return 2;
  void *raw = mmap(NULL, n + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return 2;
  *r = (struct reservation){((uint64_t)raw + align - 1) / align * align, n, (uint64_t)raw, n + align};
  *p = r->at;
  return 0;
}

static int unreserve(uint64_t p, uint64_t n) {
  for (int i = 0; i < ROWS; i++) WANT(!mappings[i].bytes || mappings[i].at + mappings[i].bytes <= p || mappings[i].at >= p + n);
  for (struct reservation *r = reservations; r < reservations + ROWS; r++)
    if (r->bytes == n && r->at == p) {
      munmap((void *)r->raw, r->raw_bytes);
      r->bytes = 0;
      return 0;
    }
  return 1;
}

static int create(uint64_t *handle, uint64_t n) {
  if (n > capacity - used) return 2;
  if (file < 0) file = memfd_create("device", MFD_CLOEXEC);
  if (next_handle + 1 == sizeof handles / sizeof *handles || ftruncate(file, file_end + n)) return 2;
  handles[*handle = ++next_handle] = (struct handle){n, file_end, 0, 1};
  file_end += n, used += n;
  return 0;
}

static int map(uint64_t p, uint64_t n, uint64_t handle) {
  WANT(handle && handle <= next_handle && handles[handle].held && handles[handle].bytes == n && is_reserved(p, n));
  for (int i = 0; i < ROWS; i++) WANT(!mappings[i].bytes || mappings[i].at + mappings[i].bytes <= p || mappings[i].at >= p + n);
  struct mapping *m = mappings;
  while (m < mappings + ROWS && m->bytes) m++;
  if (m == mappings + ROWS) return 2;
  if (mmap((void *)p, n, PROT_NONE, MAP_SHARED | MAP_FIXED, file, handles[handle].offset) == MAP_FAILED) return 2;
  *m = (struct mapping){p, n, handle, 0};
  handles[handle].maps++;
  return 0;
}

static int unmap(uint64_t p, uint64_t n) {
  WANT(covered(p, n, 1, 0));
  for (uint64_t at = p; at < p + n;) {
    struct mapping *m = mapped_at(at);
    at += m->bytes, m->bytes = 0;
    handles[m->handle].maps--;
    let_go(&handles[m->handle]);
  }
  return mmap((void *)p, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED ? 2 : 0;
}

static int give_access(uint64_t p, uint64_t n) {
  WANT(covered(p, n, 1, 0));
  for (int i = 0; i < ROWS; i++) mappings[i].access |= mappings[i].bytes && mappings[i].at >= p && mappings[i].at < p + n;
  return mprotect((void *)p, n, PROT_READ | PROT_WRITE) ? 2 : 0;
}

static int release(uint64_t handle) {
  WANT(handle && handle <= next_handle && handles[handle].held);
  handles[handle].held = 0;
  let_go(&handles[handle]);
  return 0;
}

int cuMemGetAllocationGranularity(size_t *n, const struct allocation *a, int option) { CALL(cuMemGetAllocationGranularity); WANT(right(a) && option == 1); *n = granularity; return 0; }
int cuMemAddressReserve(uint64_t *p, size_t n, size_t align, uint64_t at, unsigned long long flags) {
  CALL(cuMemAddressReserve);
  WANT(MULTIPLE(n) && MULTIPLE(align) && !(align & (align - 1)) && !at && !flags);
  LOCKED(reserve(p, n, align));
}
int cuMemAddressFree(uint64_t p, size_t n) { CALL(cuMemAddressFree); LOCKED(unreserve(p, n)); }
int cuMemCreate(uint64_t *h, size_t n, const struct allocation *a, unsigned long long flags) { CALL(cuMemCreate); WANT(right(a) && MULTIPLE(n) && !flags); LOCKED(create(h, n)); }
int cuMemRelease(uint64_t h) { CALL(cuMemRelease); LOCKED(release(h)); }
int cuMemMap(uint64_t p, size_t n, size_t offset, uint64_t h, unsigned long long flags) { CALL(cuMemMap); WANT(MULTIPLE(p) && MULTIPLE(n) && !offset && !flags); LOCKED(map(p, n, h)); }
int cuMemUnmap(uint64_t p, size_t n) { CALL(cuMemUnmap); WANT(MULTIPLE(p) && MULTIPLE(n)); LOCKED(unmap(p, n)); }
int cuMemSetAccess(uint64_t p, size_t n, const struct access *a, size_t count) {
  CALL(cuMemSetAccess);
  WANT(MULTIPLE(p) && MULTIPLE(n) && count == 1 && a->at.type == 1 && !a->at.id && a->flags == 3);
  LOCKED(give_access(p, n));
}

// Copies in the stream's order. One that touches what is reserved and may not be touched loses the context.
enum { COPIES = 4096 };
static struct { void *to; const void *from; size_t bytes; } copies[COPIES];
static int waiting, late = -1;

// Whether copies wait, as FAKE_CUDA_LATE says.
void fake_late(int on) { late = on; }

static int touchable(const void *p, size_t n) { return !is_reserved((uint64_t)p, 1) || covered((uint64_t)p, n, 0, 1); }

static int drain(void) {
  for (int i = 0; i < waiting; i++) {
    if (!touchable(copies[i].to, copies[i].bytes) || !touchable(copies[i].from, copies[i].bytes)) sticky = 700;
    else memcpy(copies[i].to, copies[i].from, copies[i].bytes);
  }
  waiting = 0;
  return sticky;
}
static int wait_for_all(void) { LOCKED(drain()); }

static int later(void *to, const void *from, size_t n) {
  if (waiting == COPIES) drain();
  copies[waiting].to = to, copies[waiting].from = from, copies[waiting++].bytes = n;
  if (late < 0) late = getenv("FAKE_CUDA_LATE") != NULL;
  return late ? 0 : drain();
}
static int copy(uint64_t to, uint64_t from, size_t n) { LOCKED(later((void *)to, (const void *)from, n)); }

int cuStreamSynchronize(void *s) { CALL(cuStreamSynchronize); WANT(s); return wait_for_all(); }
int cuStreamDestroy_v2(void *s) { CALL(cuStreamDestroy_v2); free(s); return 0; }
int cuMemAlloc_v2(uint64_t *p, size_t n) { CALL(cuMemAlloc_v2); WANT(n); *p = (uint64_t)(uintptr_t)aligned_alloc(256, (n + 255) & ~255ul); return *p ? 0 : 2; }
int cuMemFree_v2(uint64_t p) { CALL(cuMemFree_v2); int code = wait_for_all(); free((void *)(uintptr_t)p); return code; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { CALL(cuMemGetInfo_v2); *f = 12345; *t = 1u << 30; return 0; }
int cuMemHostAlloc(void **p, size_t n, unsigned flags) { CALL(cuMemHostAlloc); *p = malloc(n); return flags; }
int cuMemFreeHost(void *p) { CALL(cuMemFreeHost); int code = wait_for_all(); free(p); return code; }
int cuMemcpyHtoDAsync_v2(uint64_t d, const void *h, size_t n, void *s) { CALL(cuMemcpyHtoDAsync_v2); WANT(s); return copy(d, (uint64_t)h, n); }
int cuMemcpyDtoHAsync_v2(void *h, uint64_t d, size_t n, void *s) { CALL(cuMemcpyDtoHAsync_v2); WANT(s); return copy((uint64_t)h, d, n); }
int cuMemcpyDtoDAsync_v2(uint64_t d, uint64_t from, size_t n, void *s) { CALL(cuMemcpyDtoDAsync_v2); WANT(s); return copy(d, from, n); }
int cuModuleLoadDataEx(void **m, const void *text, unsigned n, int *options, void **values) {
  int code = answer("cuModuleLoadDataEx");
  for (unsigned i = 0; i < n; i++) {
    WANT(options[i] != 9);
    if (options[i] == 5 && code) strcpy(values[i], "ptxas fatal: the fake says no");
  }
  WANT(strstr(text, ".entry") && strchr(text, '}') && !strstr(text, "//@"));
  *m = code ? NULL : handle();
  return code;
}
int cuModuleGetFunction(void **f, void *m, const char *name) { CALL(cuModuleGetFunction); WANT(m && *name); *f = m; return 0; }
int cuModuleUnload(void *m) { CALL(cuModuleUnload); WANT(m); free(m); return 0; }
int cuFuncSetAttribute(void *f, int a, int v) { CALL(cuFuncSetAttribute); WANT(f && a == 8 && v > 49152 && v <= 232448); return 0; }
int cuFuncGetAttribute(int *v, int a, void *f) { CALL(cuFuncGetAttribute); WANT(f); *v = a == 3 ? 0 : 32; return 0; }
int cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *base, const uint64_t *dims, const uint64_t *strides,
                           const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int promotion, int fill) {
  CALL(cuTensorMapEncodeTiled);
  (void)promotion;
  WANT((uintptr_t)map % 64 == 0 && (uintptr_t)base % 16 == 0 && rank >= 1 && rank <= 5 && type <= 9 && !interleave && !fill && swizzle < 4);
  for (unsigned i = 0; i < rank; i++) WANT(dims[i] && box[i] && box[i] <= 256 && steps[i] == 1);
  for (unsigned i = 0; i + 1 < rank; i++) WANT(strides[i] % 16 == 0);
  memset(map, 1, 128);
  return 0;
}
struct config { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned count; };
int cuLaunchKernelEx(const struct config *c, void *f, void **parameters, void **extra) {
  CALL(cuLaunchKernelEx);
  WANT(f && parameters && parameters[0] && !extra && c->stream && c->count <= 1 && c->grid[0] && c->grid[1] && c->grid[2]);
  WANT(c->block[0] && c->block[0] <= 1024 && c->block[1] == 1 && c->block[2] == 1 && c->shared <= 232448);
  return 0;
}
int cuEventCreate(void **e, unsigned flags) { CALL(cuEventCreate); *e = handle(); return flags; }
int cuEventRecord(void *e, void *s) { CALL(cuEventRecord); WANT(e && s); return 0; }
int cuEventSynchronize(void *e) { CALL(cuEventSynchronize); WANT(e); return wait_for_all(); }
int cuEventElapsedTime(float *ms, void *a, void *b) { CALL(cuEventElapsedTime); WANT(a && b); *ms = 0.5f; return 0; }
int cuEventDestroy_v2(void *e) { CALL(cuEventDestroy_v2); free(e); return 0; }
int cuStreamBeginCapture_v2(void *s, int mode) { CALL(cuStreamBeginCapture_v2); WANT(s && mode == 1); return 0; }
int cuStreamEndCapture(void *s, void **g) { CALL(cuStreamEndCapture); WANT(s); *g = handle(); return 0; }
int cuGraphInstantiateWithFlags(void **x, void *g, unsigned long long flags) { CALL(cuGraphInstantiateWithFlags); WANT(g); *x = handle(); return (int)flags; }
int cuGraphLaunch(void *x, void *s) { CALL(cuGraphLaunch); WANT(x && s); return 0; }
int cuGraphExecDestroy(void *x) { CALL(cuGraphExecDestroy); free(x); return 0; }
int cuGraphDestroy(void *g) { CALL(cuGraphDestroy); free(g); return 0; }
