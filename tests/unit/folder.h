/**
 * folder.h: a folder for a test program's files, gone at its end.
 */
#ifndef TESTS_UNIT_FOLDER_H
#define TESTS_UNIT_FOLDER_H

/** cmocka's group setup and teardown. */
int make_folder(void **state);
int remove_folder(void **state);

/** The path of a name in the folder; good until the fourth call after. */
const char *in_folder(const char *name);

#endif
