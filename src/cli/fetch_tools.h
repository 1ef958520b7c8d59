/**
 * cli/fetch_tools.h: what fetching a model and fetching the novels share: folders, and programs run quietly.
 */
#ifndef ATTN_CLI_FETCH_TOOLS_H
#define ATTN_CLI_FETCH_TOOLS_H

#include <stdbool.h>
#include <stddef.h>

/** mkdir -p; false with errno set. */
bool fetch_make_folder(const char *path);
/** rm -r. */
void fetch_remove_tree(const char *path);

/**
 * Makes a temporary folder inside `cache`, which is made too. malloc'd; NULL with the sentence said.
 */
char *fetch_temporary(const char *cache);

/**
 * Runs words[0] (NULL-terminated words) in `folder`, its output appended to `log`, its temporary files in `folder`. Its exit code, or −errno when it
 * could not be started. Interrupted, it takes the program with it.
 */
int fetch_run(char *const words[], const char *folder, const char *log);

/** The last line of the log that begins with "ERROR: " or "E: " (without that), else its last line, else "". */
void fetch_last_words(const char *log, char *text, size_t size);
/** Whether a line of the log contains `what`, upper and lower case alike. */
bool fetch_log_says(const char *log, const char *what);
/** Whether the log tells of a full disk, or of a network that is not there. */
bool fetch_disk_full(const char *log);
bool fetch_no_network(const char *log);

#endif
