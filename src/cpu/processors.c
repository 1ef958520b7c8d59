/**
 * processors.c: how many processors this process may use, and how large their caches are.
 */
#define _GNU_SOURCE
#include "cpu/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_line(const char *path, char *line, size_t size)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        return false;
    }
    bool ok = fgets(line, (int)size, file) != NULL;
    fclose(file);
    return ok;
}

/* Whole processors of a quota over a period, rounded up; 0: no quota. */
static int quota_processors(long quota, long period)
{
    if (quota <= 0 || period <= 0) {
        return 0;
    }
    long processors = (quota + period - 1) / period;
    return processors > 4096 ? 4096 : (int)processors;
}

/* cgroup v2's cpu.max ("max 100000" or "150000 100000") of the process's own group, else v1's two files. */
static int cgroup_quota(void)
{
    char line[512], path[640], quota[32];
    long period = 0;
    FILE *groups = fopen("/proc/self/cgroup", "re");
    int best = 0;
    while (groups && fgets(line, sizeof line, groups)) {
        if (strncmp(line, "0::", 3) != 0) {
            continue;
        }
        line[strcspn(line, "\n")] = '\0';
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
        char text[64];
        if (read_line(path, text, sizeof text) && sscanf(text, "%31s %ld", quota, &period) == 2 &&
            strcmp(quota, "max") != 0) {
            best = quota_processors(strtol(quota, NULL, 10), period);
        }
    }
    if (groups) {
        fclose(groups);
    }
    if (best == 0) {
        char text[64], text_period[64];
        if (read_line("/sys/fs/cgroup/cpu.max", text, sizeof text) &&
            sscanf(text, "%31s %ld", quota, &period) == 2 && strcmp(quota, "max") != 0) {
            best = quota_processors(strtol(quota, NULL, 10), period);
        } else if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", text, sizeof text) &&
                   read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", text_period,
                             sizeof text_period)) {
            best = quota_processors(strtol(text, NULL, 10), strtol(text_period, NULL, 10));
        }
    }
    return best;
}

int attn_available_processors(void)
{
    int count = 0;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        count = CPU_COUNT(&set);
    }
#endif
    if (count < 1) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        count = online > 0 && online < 4096 ? (int)online : 1;
    }
    int quota = cgroup_quota();
    return quota > 0 && quota < count ? quota : count;
}

static size_t cache_size(int index, const char *want_level, const char *refuse_type)
{
    char path[128], text[64];
    const char *base = "/sys/devices/system/cpu/cpu0/cache/index";
    snprintf(path, sizeof path, "%s%d/level", base, index);
    if (!read_line(path, text, sizeof text) || text[0] != want_level[0]) {
        return 0;
    }
    snprintf(path, sizeof path, "%s%d/type", base, index);
    if (!read_line(path, text, sizeof text) || strncmp(text, refuse_type, 4) == 0) {
        return 0;
    }
    snprintf(path, sizeof path, "%s%d/size", base, index);
    if (!read_line(path, text, sizeof text)) {
        return 0;
    }
    char *unit = NULL;
    unsigned long size = strtoul(text, &unit, 10);
    return (size_t)size << (*unit == 'K' ? 10 : *unit == 'M' ? 20 : 0);
}

attn_cpu_caches attn_cpu_cache_sizes(void)
{
    attn_cpu_caches caches = {0};
    for (int i = 0; i < 8; i++) {
        size_t l1 = cache_size(i, "1", "Inst"), l2 = cache_size(i, "2", "Inst");
        size_t l3 = cache_size(i, "3", "Inst");
        caches.l1d = l1 ? l1 : caches.l1d;
        caches.l2 = l2 ? l2 : caches.l2;
        caches.l3 = l3 ? l3 : caches.l3;
    }
    return caches;
}
