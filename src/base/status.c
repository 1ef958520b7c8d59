/**
 * status.c: statuses in words, structs that can grow, and the thread's last error.
 */
#include <attn/base.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last_error[1024];

attn_status attn_fail(attn_status status, const char *format, ...)
{
    /* Formatted aside first, so that a message may quote the last one. */
    char text[sizeof last_error];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(last_error, sizeof last_error, "%s", text);
    return status;
}

attn_status attn_take_struct(const char *name, const char *init, const void *given, void *known,
                             size_t known_size)
{
    enum { MOST = 65536 }; /* no struct is larger: what says so was never initialised */
    size_t size;
    if (!given) {
        return ATTN_OK;
    }
    memcpy(&size, given, sizeof size);
    if (size < sizeof size || size > MOST) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "%s: struct_size is %zu but must be sizeof the struct; start from %s()",
                         name, size, init);
    }
    memcpy(known, given, size < known_size ? size : known_size);
    memcpy(known, &known_size, sizeof known_size);
    for (size_t n = known_size; n < size; n++) {
        if (((const unsigned char *)given)[n] != 0) {
            return attn_fail(ATTN_ERR_UNSUPPORTED,
                             "%s: byte %zu is set but this library (%s) knows only the first %zu; "
                             "use a newer libattn or leave what is new at zero",
                             name, n, attn_version(), known_size);
        }
    }
    return ATTN_OK;
}

const char *attn_last_error(void)
{
    return last_error;
}

const char *attn_status_string(attn_status status)
{
    switch (status) {
    case ATTN_OK: return "ok";
    case ATTN_ERR_SHAPE: return "shape";
    case ATTN_ERR_DTYPE: return "dtype";
    case ATTN_ERR_ARGUMENT: return "argument";
    case ATTN_ERR_UNSUPPORTED: return "unsupported";
    case ATTN_ERR_CAPACITY: return "capacity";
    case ATTN_ERR_NO_MEMORY: return "no memory";
    case ATTN_ERR_IO: return "input/output";
    case ATTN_ERR_FORMAT: return "format";
    case ATTN_ERR_CANCELLED: return "cancelled";
    }
    return "unknown status";
}

const char *attn_version(void)
{
    return ATTN_VERSION_STRING;
}
