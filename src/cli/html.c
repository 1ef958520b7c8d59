/**
 * html.c: a report's frame.
 */
#define _GNU_SOURCE
#include "html.h"
#include "write_file.h"

#include <stdlib.h>
#include <string.h>

void html_text(FILE *page, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        switch (text[i]) {
        case '&': fputs("&amp;", page); break;
        case '<': fputs("&lt;", page); break;
        case '>': fputs("&gt;", page); break;
        default: fputc(text[i], page);
        }
    }
}

#if defined(ATTN_HAVE_CHART_JS)

extern const unsigned char attn_chart_js[];
extern const size_t attn_chart_js_size;

static const char style[] =
    "<style>\n"
    ":root { color-scheme: light dark; --line: #8884; }\n"
    "body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; "
    "padding: 0 1rem; }\n"
    ".charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); "
    "gap: 1.5rem; }\n"
    ".chart { position: relative; height: 26rem; }\n"
    "table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }\n"
    "th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; }\n"
    "th:first-child, td:first-child { text-align: left; }\n"
    "pre { white-space: pre-wrap; border-left: 3px solid var(--line); padding-left: 1rem; }\n"
    ".wide { overflow-x: auto; }\n</style>\n";

static const char prelude[] =
    "const colours = ['#d1495b', '#edae49', '#00798c', '#66a182', '#2e4057'];\n"
    "const dark = matchMedia('(prefers-color-scheme: dark)').matches;\n"
    "Chart.defaults.color = dark ? '#ddd' : '#333';\n"
    "Chart.defaults.borderColor = dark ? '#fff2' : '#0002';\n"
    "if (dark) { colours[2] = '#3fb8c9'; colours[4] = '#9fb4c7'; }\n";

/* JSON inside a script: "</script>" in a text must not end it. */
static void write_json(FILE *page, const char *json)
{
    for (; *json; json++) {
        if (*json == '<') {
            fputs("\\u003c", page);
        } else {
            fputc(*json, page);
        }
    }
}

attn_status html_write(const char *path, const char *title, const char *heading, html_body *body,
                       const void *user, const char *name, json_t *object, const char *script,
                       const char *instead)
{
    (void)instead;
    char *json = object ? json_dumps(object, JSON_COMPACT) : NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *page = json ? open_memstream(&text, &size) : NULL;
    bool ok = page != NULL;
    if (page) {
        fprintf(page,
                "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<link rel=\"icon\" href=\"data:,\">\n" /* or browsers ask for /favicon.ico */
                "<title>%s</title>\n%s</head>\n<body>\n<h1>%s</h1>\n",
                title, style, heading);
        body(page, user);
        fputs("<script>\n", page);
        fwrite(attn_chart_js, 1, attn_chart_js_size, page);
        fprintf(page, "\n</script>\n<script>\nconst %s = ", name);
        write_json(page, json);
        fprintf(page, ";\n%s%s</script>\n</body>\n</html>\n", prelude, script);
        ok = !ferror(page);
        ok = fclose(page) == 0 && ok;
    }
    attn_status status = ok ? write_file(path, (const void *[]){text}, &size, 1)
                            : attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for the page", path);
    free(text);
    free(json);
    json_decref(object);
    return status;
}

attn_status html_possible(const char *path, const char *instead)
{
    (void)instead;
    return write_file_possible(path);
}

#else

attn_status html_possible(const char *path, const char *instead)
{
    return attn_fail(ATTN_ERR_UNSUPPORTED,
                     "%s: this build has no Chart.js and so no HTML report; install libjs-chart.js "
                     "and build again, or use %s",
                     path, instead);
}

attn_status html_write(const char *path, const char *title, const char *heading, html_body *body,
                       const void *user, const char *name, json_t *object, const char *script,
                       const char *instead)
{
    (void)title, (void)heading, (void)body, (void)user, (void)name, (void)script;
    json_decref(object);
    return html_possible(path, instead);
}

#endif
