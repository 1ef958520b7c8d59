/**
 * html.h: the frame of a report: one page that needs nothing from anywhere, with Chart.js (MIT licence, see its banner in the page) inside.
 */
#ifndef ATTN_CLI_HTML_H
#define ATTN_CLI_HTML_H

#include "cli.h"
#include <stdio.h>

/** Writes what stands between the frame's beginning and the script. */
typedef void html_body(FILE *page, const void *user);

/**
 * A page: title in the head and `heading` above body(); at the end `const <name> = <object>;` and `script`, which may use Chart. The object is taken over.
 * ATTN_ERR_UNSUPPORTED in builds without Chart.js (`instead` says what to use), IO, NO_MEMORY.
 */
attn_status html_write(const char *path, const char *title, const char *heading, html_body *body,
                       const void *user, const char *name, json_t *object, const char *script,
                       const char *instead);

/** Whether html_write could write that page, to be asked before the work whose result it shows: IO, UNSUPPORTED. */
attn_status html_possible(const char *path, const char *instead);

/** Text with &, < and > as entities. */
void html_text(FILE *page, const char *text, size_t size);

#endif
