/* What stands in for NVIDIA's libraries where there is no GPU, so that ONNX Runtime's CUDA provider loads, registers its
   kernels and takes its part of a graph. One device, whose memory is the host's; nothing is ever computed on it.
   Functions that are not here and that the provider imports are made to return 0 (generate_kernels.py). */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY (80ull << 30)
#define ALIGNMENT 256

static char handle[4096];

/* cudaDeviceProp of CUDA 13.0, driver_types.h: its size, and the places of what is read. */
enum { PROPERTIES = 1008, TOTAL_MEMORY = 288, SHARED_PER_BLOCK = 296, REGISTERS_PER_BLOCK = 304, WARP = 308,
       THREADS_PER_BLOCK = 320, MAJOR = 360, MINOR = 364, PROCESSORS = 384, THREADS_PER_PROCESSOR = 604,
       SHARED_PER_PROCESSOR = 624, REGISTERS_PER_PROCESSOR = 632, SHARED_OPT_IN = 672 };
/* cudaDeviceAttr */
enum { ATTRIBUTE_MAJOR = 75, ATTRIBUTE_MINOR = 76 };

static void put(char *at, int value) { memcpy(at, &value, sizeof value); }
static void put_size(char *at, size_t value) { memcpy(at, &value, sizeof value); }

int cudaGetDeviceProperties(char *properties, int device) {
  memset(properties, 0, PROPERTIES);
  strcpy(properties, "stand-in");
  put_size(properties + TOTAL_MEMORY, MEMORY);
  put_size(properties + SHARED_PER_BLOCK, 49152);
  put(properties + REGISTERS_PER_BLOCK, 65536);
  put(properties + WARP, 32);
  put(properties + THREADS_PER_BLOCK, 1024);
  put(properties + MAJOR, CAPABILITY_MAJOR);
  put(properties + MINOR, CAPABILITY_MINOR);
  put(properties + PROCESSORS, 132);
  put(properties + THREADS_PER_PROCESSOR, 2048);
  put_size(properties + SHARED_PER_PROCESSOR, 233472);
  put(properties + REGISTERS_PER_PROCESSOR, 65536);
  put_size(properties + SHARED_OPT_IN, 232448);
  return 0;
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == ATTRIBUTE_MAJOR ? CAPABILITY_MAJOR : attribute == ATTRIBUTE_MINOR ? CAPABILITY_MINOR : 1;
  return 0;
}
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = MEMORY; return 0; }

int cudaMalloc(void **place, size_t size) {
  *place = size ? aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT) : NULL;
  return size && !*place;
}
int cudaMallocHost(void **place, size_t size) { return cudaMalloc(place, size); }
int cudaHostAlloc(void **place, size_t size, unsigned flags) { return cudaMalloc(place, size); }
int cudaMallocFromPoolAsync(void **place, size_t size, void *pool, void *stream) { return cudaMalloc(place, size); }
int cudaFree(void *place) { free(place); return 0; }
int cudaFreeHost(void *place) { free(place); return 0; }
int cudaFreeAsync(void *place, void *stream) { free(place); return 0; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) { memcpy(to, from, size); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  memcpy(to, from, size);
  return 0;
}
int cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return 0; }
int cudaMemsetAsync(void *to, int value, size_t size, void *stream) { memset(to, value, size); return 0; }

int cudaStreamCreate(void **stream) { *stream = handle; return 0; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { *stream = handle; return 0; }
int cudaEventCreate(void **event) { *event = handle; return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = handle; return 0; }
int cudaMemPoolCreate(void **pool, void *properties) { *pool = handle; return 0; }
int cublasCreate_v2(void **context) { *context = handle; return 0; }
int cublasLtCreate(void **context) { *context = handle; return 0; }
void **__cudaRegisterFatBinary(void *binary) { return (void **)handle; }

const char *cudaGetErrorName(int code) { return "none"; }
const char *cudaGetErrorString(int code) { return "none"; }
const char *cublasGetStatusName(int code) { return "none"; }
const char *cublasGetStatusString(int code) { return "none"; }
