// A libcuda that has no GPU: memory is the host's, launches do nothing, and every function fails when it is told to.
//   FAKE_CUDA_FAIL=cuMemAlloc_v2:2:700   the second and every later call of cuMemAlloc_v2 answers 700
//   FAKE_CUDA_LOG=FILE                   counts of calls, written when the process ends
// What is called wrongly answers 1 (invalid value).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 64 };
static struct { const char *name; long calls; } counts[KINDS];

static void write_log(void) {
  const char *path = getenv("FAKE_CUDA_LOG");
  FILE *file = path ? fopen(path, "w") : NULL;
  for (int i = 0; file && i < KINDS && counts[i].name; i++) fprintf(file, "%s %ld\n", counts[i].name, counts[i].calls);
  if (file) fclose(file);
}

static int answer(const char *name) {
  int i = 0;
  static int registered = 0;
  if (!__atomic_exchange_n(&registered, 1, __ATOMIC_SEQ_CST)) atexit(write_log);
  while (i < KINDS && counts[i].name && strcmp(counts[i].name, name)) i++;
  counts[i].name = name;
  long calls = ++counts[i].calls;
  const char *rule = getenv("FAKE_CUDA_FAIL");
  for (; rule && *rule; rule = strchr(rule, ',') ? strchr(rule, ',') + 1 : NULL) {
    char which[64];
    long from, code;
    if (sscanf(rule, "%63[^:]:%ld:%ld", which, &from, &code) == 3 && !strcmp(which, name) && calls >= from) return (int)code;
  }
  return 0;
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
     : a == 37 ? 6144 : a == 38 ? 62914560 : a == 97 ? 232448 : -1;
  return *v < 0 ? 1 : d;
}
int cuDeviceTotalMem_v2(size_t *n, int d) { CALL(cuDeviceTotalMem_v2); *n = 1u << 30; return d; }
int cuDevicePrimaryCtxRetain(void **c, int d) { CALL(cuDevicePrimaryCtxRetain); *c = handle(); return d; }
int cuDevicePrimaryCtxRelease_v2(int d) { CALL(cuDevicePrimaryCtxRelease_v2); return d; }
int cuCtxSetCurrent(void *c) { CALL(cuCtxSetCurrent); WANT(c); return 0; }
int cuStreamCreate(void **s, unsigned flags) { CALL(cuStreamCreate); WANT(flags == 1); *s = handle(); return 0; }
int cuStreamSynchronize(void *s) { CALL(cuStreamSynchronize); WANT(s); return 0; }
int cuStreamDestroy_v2(void *s) { CALL(cuStreamDestroy_v2); free(s); return 0; }
int cuMemAlloc_v2(uint64_t *p, size_t n) { CALL(cuMemAlloc_v2); WANT(n); *p = (uint64_t)(uintptr_t)aligned_alloc(256, (n + 255) & ~255ul); return *p ? 0 : 2; }
int cuMemFree_v2(uint64_t p) { CALL(cuMemFree_v2); free((void *)(uintptr_t)p); return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { CALL(cuMemGetInfo_v2); *f = 12345; *t = 1u << 30; return 0; }
int cuMemHostAlloc(void **p, size_t n, unsigned flags) { CALL(cuMemHostAlloc); *p = malloc(n); return flags; }
int cuMemFreeHost(void *p) { CALL(cuMemFreeHost); free(p); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t d, const void *h, size_t n, void *s) { CALL(cuMemcpyHtoDAsync_v2); WANT(s); memcpy((void *)(uintptr_t)d, h, n); return 0; }
int cuMemcpyDtoHAsync_v2(void *h, uint64_t d, size_t n, void *s) { CALL(cuMemcpyDtoHAsync_v2); WANT(s); memcpy(h, (void *)(uintptr_t)d, n); return 0; }
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
int cuEventSynchronize(void *e) { CALL(cuEventSynchronize); WANT(e); return 0; }
int cuEventElapsedTime(float *ms, void *a, void *b) { CALL(cuEventElapsedTime); WANT(a && b); *ms = 0.5f; return 0; }
int cuEventDestroy_v2(void *e) { CALL(cuEventDestroy_v2); free(e); return 0; }
int cuStreamBeginCapture_v2(void *s, int mode) { CALL(cuStreamBeginCapture_v2); WANT(s && mode == 1); return 0; }
int cuStreamEndCapture(void *s, void **g) { CALL(cuStreamEndCapture); WANT(s); *g = handle(); return 0; }
int cuGraphInstantiateWithFlags(void **x, void *g, unsigned long long flags) { CALL(cuGraphInstantiateWithFlags); WANT(g); *x = handle(); return (int)flags; }
int cuGraphLaunch(void *x, void *s) { CALL(cuGraphLaunch); WANT(x && s); return 0; }
int cuGraphExecDestroy(void *x) { CALL(cuGraphExecDestroy); free(x); return 0; }
int cuGraphDestroy(void *g) { CALL(cuGraphDestroy); free(g); return 0; }
