/**
 * status.c: statuses in words, and the thread's last error.
 */
#include <attn/base.h>

#include <stdarg.h>
#include <stdio.h>

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
