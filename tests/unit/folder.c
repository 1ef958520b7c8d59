/*
 * folder.c: see folder.h.
 */
#define _GNU_SOURCE
#include "folder.h"

#include <stdio.h>
#include <stdlib.h>

static char folder[64];

int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/attn-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

const char *in_folder(const char *name)
{
    static char paths[4][128];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}
