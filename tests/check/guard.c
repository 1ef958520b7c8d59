/* Memory between inaccessible pages, and the state of the processor around a kernel. */
#include "check.h"

#include "cpu/cpu.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MARGIN = 256 }; /* bytes around a buffer that must not change */

static const size_t shifts[] = {0, 0, 4, 16, 60};

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Makes slot `b` hold at least `bytes`. */
static void grow(check_buffer *b, size_t bytes)
{
    size_t page = page_size();
    size_t region = (bytes + 64 + page - 1) / page * page;
    if (b->region_bytes >= region) {
        return;
    }
    if (b->region) {
        munmap(b->region - page, b->region_bytes + 2 * page);
    }
    unsigned char *map =
        mmap(NULL, region + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map, page, PROT_NONE) ||
        mprotect(map + page + region, page, PROT_NONE)) {
        perror("attn_check: mmap");
        exit(1);
    }
    b->region = map + page;
    b->region_bytes = region;
}

/* The part of the region around the data that is filled and looked at. */
static unsigned char *margin_begin(const check_buffer *b)
{
    return b->data - b->region > MARGIN ? b->data - MARGIN : b->region;
}

static unsigned char *margin_end(const check_buffer *b)
{
    unsigned char *end = b->data + b->bytes;
    unsigned char *last = b->region + b->region_bytes;
    return last - end > MARGIN ? end + MARGIN : last;
}

void *check_take(check *c, const char *name, size_t bytes, size_t align)
{
    if (c->buffers == CHECK_BUFFERS) {
        fprintf(stderr, "attn_check: too many buffers\n");
        exit(1);
    }
    check_buffer *b = &c->buffer[c->buffers++];
    grow(b, bytes);
    b->name = name;
    b->bytes = bytes;
    b->read_only = false;
    if (c->placement == 0) {
        size_t start = (b->region_bytes - bytes) / align * align;
        b->data = b->region + start;
    } else {
        size_t shift = shifts[c->placement];
        b->data = b->region + (shift % align == 0 ? shift : shift / align * align);
    }
    memset(margin_begin(b), 0xff, (size_t)(margin_end(b) - margin_begin(b)));
    return b->data;
}

float *check_floats(check *c, const char *name, int64_t count, size_t align)
{
    return check_take(c, name, (size_t)count * sizeof(float), align);
}

void check_input(check *c, const void *data)
{
    for (int n = 0; n < c->buffers; n++) {
        check_buffer *b = &c->buffer[n];
        if (b->data == data) {
            b->read_only = true;
            mprotect(b->region, b->region_bytes, PROT_READ);
            return;
        }
    }
}

void check_release(check *c)
{
    for (int n = 0; n < c->buffers; n++) {
        check_buffer *b = &c->buffer[n];
        if (b->read_only) {
            mprotect(b->region, b->region_bytes, PROT_READ | PROT_WRITE);
            continue;
        }
        for (const unsigned char *p = margin_begin(b); !c->failed && p < margin_end(b); p++) {
            bool inside = p >= b->data && p < b->data + b->bytes;
            if (!inside && *p != 0xff) {
                check_fail(c, "%s (%zu bytes): byte %td was written", b->name, b->bytes,
                           p - b->data);
            }
        }
    }
    c->buffers = 0;
}

/* ---- faults ------------------------------------------------------------------------------------ */

static check *catching;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (catching && catching->armed) {
        catching->armed = false;
        catching->fault = info->si_addr;
        siglongjmp(catching->jump, number);
    }
    signal(number, SIG_DFL);
    raise(number);
}

void check_catch_faults(check *c)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    catching = c;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
}

static attn_fp_state saved;

void check_faulted(check *c)
{
    attn_fp_leave(saved);
    const unsigned char *at = c->fault;
    size_t page = page_size();
    for (int n = 0; n < c->buffers; n++) {
        const check_buffer *b = &c->buffer[n];
        if (at >= b->region - page && at < b->region + b->region_bytes + page) {
            bool inside = at >= b->region && at < b->region + b->region_bytes;
            check_fail(c, "%s at byte %td of %s (%zu bytes)",
                       inside ? "writes to the input, or a misaligned access,"
                              : "touches memory outside",
                       at - b->data, b->name, b->bytes);
            return;
        }
    }
    check_fail(c,
               "faults at %p: a misaligned access, a wild pointer, or an instruction this level "
               "lacks",
               c->fault);
}

/* ---- the state of the processor ---------------------------------------------------------------- */

#if defined(__x86_64__)
#include <cpuid.h>

static bool can_see_upper(void)
{
    static int known = CHECK_SANITIZED ? 0 : -1;
    if (known < 0) {
        unsigned a = 0;
        unsigned b = 0;
        unsigned c = 0;
        unsigned d = 0;
        known = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) && (c & bit_AVX) &&
                __get_cpuid_count(13, 1, &a, &b, &c, &d) && (a & 4);
    }
    return known;
}

static bool upper_in_use(void)
{
    unsigned low = 0;
    unsigned high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return low & 4;
}

static unsigned control_bits(void)
{
    unsigned state;
    __asm__ volatile("stmxcsr %0" : "=m"(state));
    return state & ~0x3fu;
}

static unsigned before;

void check_before(check *c)
{
    if (can_see_upper()) {
        __asm__ volatile("vzeroupper" ::: "memory");
    }
    saved = attn_fp_enter(c->placement % 2 == 1); /* kernels run either way */
    before = control_bits();
    c->armed = true;
}

void check_after(check *c)
{
    bool dirty = can_see_upper() && upper_in_use();
    c->armed = false;
    bool changed = control_bits() != before;
    attn_fp_leave(saved);
    if (changed) {
        check_fail(c, "leaves MXCSR changed");
    }
    if (dirty) {
        check_fail(c, "leaves the upper halves of vector registers dirty: vzeroupper is missing");
        __asm__ volatile("vzeroupper" ::: "memory");
    }
}
#else
void check_before(check *c)
{
    saved = attn_fp_enter(c->placement % 2 == 1);
    c->armed = true;
}

void check_after(check *c)
{
    c->armed = false;
    attn_fp_leave(saved);
}
#endif
