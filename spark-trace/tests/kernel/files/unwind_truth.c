// Takes memory from functions that keep no frame pointers, and prints who called whom, as backtrace(3) finds it out in the process.
// Built with -O2 -fomit-frame-pointer -rdynamic. Usage: unwind_truth DRIVER GATE; an empty DRIVER is left out.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define FUNCTION __attribute__((noinline, noclone)) static

typedef int (*alloc_fn)(void **, size_t);
static alloc_fn device_alloc;
static volatile long sink;

// One line an allocation: its kind, its size, and its callers from the inside out.
FUNCTION void say(const char *kind, size_t size) {
    void *frames[128];
    int count = backtrace(frames, 128);
    printf("%s %zu", kind, size);
    for (int i = 1; i < count; i++) {
        Dl_info info;
        // A return address may lie just past the function that made the call.
        int known = dladdr((char *)frames[i] - 1, &info) != 0 && info.dli_sname != NULL;
        printf(" %s", known ? info.dli_sname : "?");
    }
    printf("\n");
}

__attribute__((noinline, noclone)) void innermost(size_t size) {
    volatile char pad[200];
    pad[0] = 1;
    if (device_alloc != NULL && size % (2 * MIB) == MIB) {
        void *at = NULL;
        say("device", size);
        if (device_alloc(&at, size) != 0) {
            exit(2);
        }
    } else {
        say("anon", size);
        char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) {
            exit(2);
        }
        at[0] = 1;
    }
    sink += pad[0];
}

// Registers that a callee saves are in use here, and rbp as any other.
__attribute__((noinline, noclone)) long middle(size_t size, long a, long b, long c) {
    long d = a * b + c, e = a ^ b, f = b - c, g = a + c;
    innermost(size);
    return d + e * f - g + sink;
}

// A frame whose size is known only at run time.
__attribute__((noinline, noclone)) long variable(size_t size, long depth) {
    char *room = alloca((size_t)(depth * 64 + 16));
    room[0] = (char)depth;
    long found = middle(size, depth, sink + 3, 7);
    return found + room[0];
}

// A frame that is aligned for vectors.
__attribute__((noinline, noclone)) long aligned(size_t size, long depth) {
    volatile char room[96] __attribute__((aligned(64)));
    room[0] = 2;
    long found = variable(size, depth);
    return found + room[0];
}

__attribute__((noinline, noclone)) long recursive(size_t size, long depth) {
    if (depth == 0) {
        return aligned(size, 5) + 1;
    }
    long found = recursive(size, depth - 1);
    // Not the last thing that it does, so that it is no loop.
    sink += found;
    return found * 3 + depth + sink;
}

// Larger than what is copied.
__attribute__((noinline, noclone)) long huge(size_t size) {
    volatile char room[40 << 10];
    room[0] = room[sizeof room - 1] = 1;
    long found = recursive(size, 1);
    return found + room[0];
}

static size_t in_signal;

void handler(int number) {
    sink += number;
    recursive(in_signal, 0);
    sink += 1;
}

__attribute__((noinline, noclone)) void signalled(size_t size) {
    in_signal = size;
    raise(SIGUSR1);
    sink += 1;
}

void *thread(void *size) {
    recursive((size_t)size, 2);
    sink += 1;
    return NULL;
}

int compare(const void *left, const void *right) {
    static int once;
    if (once == 0) {
        once = 1;
        recursive(*(const size_t *)left + *(const size_t *)right, 0);
        sink += 1;
    }
    return 0;
}

int main(int count, char **words) {
    if (count > 1 && words[1][0] != 0) {
        void *driver = dlopen(words[1], RTLD_NOW);
        int (*init)(unsigned) = driver ? (int (*)(unsigned))dlsym(driver, "cuInit") : NULL;
        int (*retain)(void **, int) =
            driver ? (int (*)(void **, int))dlsym(driver, "cuDevicePrimaryCtxRetain") : NULL;
        int (*set)(void *) = driver ? (int (*)(void *))dlsym(driver, "cuCtxSetCurrent") : NULL;
        device_alloc = driver ? (alloc_fn)dlsym(driver, "cuMemAlloc_v2") : NULL;
        void *context = NULL;
        if (!init || !retain || !set || !device_alloc || init(0) || retain(&context, 0) || set(context)) {
            fprintf(stderr, "no driver: %s\n", dlerror());
            return 2;
        }
    }
    printf("HOLD\n");
    fflush(stdout);
    while (count > 2 && access(words[2], F_OK) != 0) {
        usleep(10000);
    }
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGUSR1, &action, NULL);
    sink += middle(8 * MIB, 1, 2, 3);
    sink += recursive(10 * MIB, 6);
    sink += huge(12 * MIB);
    signalled(14 * MIB);
    pthread_t other;
    pthread_create(&other, NULL, thread, (void *)(16 * MIB));
    pthread_join(other, NULL);
    size_t numbers[2] = {9 * MIB, 9 * MIB};
    qsort(numbers, 2, sizeof numbers[0], compare);
    if (device_alloc != NULL) {
        sink += middle(21 * MIB, 1, 2, 3);
        sink += recursive(23 * MIB, 60);
    }
    fflush(stdout);
    return 0;
}
