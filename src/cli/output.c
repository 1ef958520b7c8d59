/**
 * cli/output.c: sentences on standard error, and a standard output whose failures are noticed.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int write_error; /* errno of the first failed write to standard output */

int cli_fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("attn: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    return CLI_FAILED;
}

int cli_fail_attn(const char *what)
{
    return what ? cli_fail("%s: %s", what, attn_last_error()) : cli_fail("%s", attn_last_error());
}

void cli_note(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
}

bool cli_write(const char *text, size_t size)
{
    if (write_error) {
        return false;
    }
    errno = 0;
    if (fflush(stdout) != 0) {
        write_error = errno ? errno : EIO;
        return false;
    }
    /* Past stdio, which cannot go on where a signal stopped it: the first Ctrl-C loses nothing of what is said. */
    while (size > 0) {
        ssize_t n = write(STDOUT_FILENO, text, size);
        if (n < 0 && errno != EINTR) {
            write_error = errno;
            return false;
        }
        text += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

int cli_finish(int code)
{
    static bool told; /* main calls this again after a command has */
    errno = 0;
    if (!write_error && (fflush(stdout) != 0 || ferror(stdout))) {
        write_error = errno ? errno : EIO;
    }
    if (!write_error) {
        return code;
    }
    if (!told) {
        told = true;
        cli_fail("standard output cannot be written: %s", strerror(write_error));
    }
    return CLI_FAILED;
}

int cli_print_json(json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(object);
    if (text == NULL) {
        return cli_fail("not enough memory for the JSON output");
    }
    cli_write(text, strlen(text));
    cli_write("\n", 1);
    free(text);
    return cli_finish(CLI_OK);
}

json_t *cli_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Length of the well-formed UTF-8 character at text (Unicode, table 3-7); else 0, and *bad bytes to
 * replace. */
static size_t utf8_at(const unsigned char *text, size_t size, size_t *bad)
{
    unsigned char lead = text[0];
    size_t need = lead < 0x80                    ? 1
                  : lead >= 0xc2 && lead <= 0xdf ? 2
                  : lead >= 0xe0 && lead <= 0xef ? 3
                  : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                 : 0;
    *bad = 1;
    if (need <= 1) {
        return need;
    }
    for (size_t i = 1; i < need; i++) {
        unsigned char low = 0x80, high = 0xbf;
        if (i == 1) {
            low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
            high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        }
        if (i >= size || text[i] < low || text[i] > high) {
            *bad = i;
            return 0;
        }
    }
    return need;
}

json_t *cli_json_text(const char *text, size_t size)
{
    char *clean = malloc(3 * size + 1);
    if (clean == NULL) {
        return NULL;
    }
    size_t used = 0;
    for (size_t i = 0; i < size;) {
        size_t bad = 1;
        size_t n = utf8_at((const unsigned char *)text + i, size - i, &bad);
        memcpy(clean + used, n ? text + i : "\xef\xbf\xbd", n ? n : 3);
        used += n ? n : 3;
        i += n ? n : bad;
    }
    json_t *value = json_stringn(clean, used);
    free(clean);
    return value;
}

const char *cli_bytes(double bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int unit = 0;
    while (bytes >= 1024 && unit < 5) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, size, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return text;
}

size_t cli_peak_rss(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}

double cli_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
