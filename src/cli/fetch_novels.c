/**
 * cli/fetch_novels.c: the default text to train on: six novels by Jane Austen out of the Debian package r-cran-janeaustenr, without R. apt-get
 * downloads it into a temporary folder inside the cache, dpkg-deb unpacks it (nothing of it is run), and the texts get their place
 * once the SHA-256 of each is right.
 */
#define _GNU_SOURCE
#include "cli.h"
#include "fetch_tools.h"
#include "rdata.h"
#include "write_file.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PACKAGE "r-cran-janeaustenr"
#define MEMBER  "unpacked/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
#define WHOLE   "f2516f2139e3cecf49657122fed58ac46313f1fdff32a26fc66789293e92d573"
/* The database of 1.0.0-1 has 1.6 MB. */
#define DATABASE_MAX ((size_t)64 << 20)

#define NOVELS 6

/* In the order of the database; in novels.txt they are in that of their publication. */
static const struct novel {
    const char *file;
    int place; /* in novels.txt */
    const char *sha256;
} novels[NOVELS] = {
    {"emma.txt", 3, "7c67b5985c6d0de1efaeb5d342d52cb82c38083c40e2295129e30e87ee690ebe"},
    {"mansfield_park.txt", 2, "98bc90519cdf4ef663ad7de2734bb529435ef24f7abbde6bb1a50898871dafe9"},
    {"northanger_abbey.txt", 4, "51f91bbe0517db8e65cff009b097ce0a1836124c4e0532ac19e6c0cad982abed"},
    {"persuasion.txt", 5, "8061549557aebd2fd6e353d18d9197cb707029112bd52d4d8b174583a925848a"},
    {"pride_and_prejudice.txt", 1,
     "dfc684d4f857fa938268f9ab9c5567b64bd0691251eca959644adeabe6287a4d"},
    {"sense_and_sensibility.txt", 0,
     "105e1651fe93bed7130078578efd31e0c557d68667ba672ddc876f735b30fe09"},
};

const cli_text cli_novels = {
    .name = "novels",
    .title = "six novels by Jane Austen",
    .licence = "public domain",
    .source = "Debian package " PACKAGE,
    .bytes = 4025029,
};

static char *joined(const char *folder, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0) {
        cli_fail("not enough memory");
        return NULL;
    }
    return path;
}

char *cli_novels_path(void)
{
    char *cache = cli_cache_folder(), *path = cache ? joined(cache, "novels/novels.txt") : NULL;
    free(cache);
    return path;
}

/* ---- the package ---- */

/* The sentence for a program that did not do what it should. */
static int explain(const char *program, const char *cache, const char *log, int result)
{
    char words[600];
    if (cli_interrupted()) {
        return CLI_INTERRUPTED;
    }
    if (result == -ENOENT) {
        return cli_fail("%s is not there: the novels come from a Debian package; on another "
                        "system, put texts of your own into files and train on those",
                        program);
    }
    if (result < 0) {
        return cli_fail("%s cannot be started: %s", program, strerror(-result));
    }
    if (fetch_disk_full(log)) {
        return cli_fail("there is not enough room in %s: fetching takes about 80 MB", cache);
    }
    if (fetch_no_network(log)) {
        return cli_fail("the Debian archive cannot be reached: is the network there?");
    }
    fetch_last_words(log, words, sizeof words);
    return cli_fail("%s failed on " PACKAGE ": %s", program,
                    words[0] ? words : "it did not say why");
}

/* apt-get download with the machine's package lists, or, where it has none, with lists of our own. */
static int download(const char *folder, const char *log)
{
    char *lists = joined(folder, "lists"), *cache = joined(folder, "cache");
    char *lists_option = NULL, *cache_option = NULL, *partial = NULL, *archives = NULL;
    int result = -ENOMEM;
    if (lists && cache && asprintf(&lists_option, "Dir::State::Lists=%s", lists) >= 0 &&
        asprintf(&cache_option, "Dir::Cache=%s", cache) >= 0 &&
        (partial = joined(lists, "partial")) && (archives = joined(cache, "archives/partial"))) {
        char *plain[] = {"apt-get",  "-q",    "-o", "APT::Sandbox::User=root",
                         "download", PACKAGE, NULL};
        char *update[] = {"apt-get", "-q",         "-o", lists_option,
                          "-o",      cache_option, "-o", "APT::Sandbox::User=root",
                          "update",  NULL};
        char *own[] = {"apt-get",  "-q",         "-o", lists_option,
                       "-o",       cache_option, "-o", "APT::Sandbox::User=root",
                       "download", PACKAGE,      NULL};
        result = fetch_run(plain, folder, log);
        if (result > 0 && !cli_interrupted() && fetch_log_says(log, "Unable to locate") &&
            fetch_make_folder(partial) && fetch_make_folder(archives)) {
            result = fetch_run(update, folder, log);
            result = result == 0 && !cli_interrupted() ? fetch_run(own, folder, log) : result;
        }
    }
    free(lists);
    free(cache);
    free(lists_option);
    free(cache_option);
    free(partial);
    free(archives);
    return result;
}

/* The package, downloaded and unpacked: folder/MEMBER is then there. */
static int unpack(const char *cache, const char *folder)
{
    char *log = joined(folder, "log"), *pattern = joined(folder, PACKAGE "_*.deb");
    glob_t packages = {0};
    int code = CLI_OK, result = log && pattern ? download(folder, log) : -ENOMEM;
    if (result != 0 || cli_interrupted()) {
        code = explain("apt-get", cache, log ? log : "", result);
    } else if (glob(pattern, 0, NULL, &packages) != 0) {
        code = cli_fail("apt-get fetched " PACKAGE " but no package came");
    } else {
        char *words[] = {"dpkg-deb", "-x", packages.gl_pathv[0], "unpacked", NULL};
        result = fetch_run(words, folder, log);
        if (result != 0 || cli_interrupted()) {
            code = explain("dpkg-deb", cache, log, result);
        }
    }
    globfree(&packages);
    free(pattern);
    free(log);
    return code;
}

/* ---- the texts ---- */

/* All of a file of at most DATABASE_MAX bytes; NULL with the sentence said. */
static unsigned char *read_database(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rbe");
    unsigned char *bytes = NULL;
    struct stat info;
    if (file == NULL || fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        cli_fail(PACKAGE " has no " MEMBER);
    } else if ((size_t)info.st_size > DATABASE_MAX) {
        cli_fail("the database of " PACKAGE " has %lld bytes, which cannot be right",
                 (long long)info.st_size);
    } else if ((bytes = malloc((size_t)info.st_size + 1)) == NULL) {
        cli_fail("not enough memory");
    } else {
        *size = fread(bytes, 1, (size_t)info.st_size, file);
    }
    if (file) {
        fclose(file);
    }
    return bytes;
}

static int check(const char *folder, const char *name, const char *sha256)
{
    char digest[65], *path = joined(folder, name);
    int code = CLI_FAILED;
    attn_status status = path ? attn_file_sha256(path, digest, cli_cancel, NULL) : ATTN_ERR_IO;
    if (path && status == ATTN_ERR_CANCELLED) {
        code = CLI_INTERRUPTED;
    } else if (path && status != ATTN_OK) {
        cli_fail_attn(NULL);
    } else if (path && strcmp(digest, sha256) != 0) {
        cli_fail("%s is not the text it should be: its SHA-256 is %s, it must be %s", name, digest,
                 sha256);
    } else if (path) {
        code = CLI_OK;
    }
    free(path);
    return code;
}

/* folder/<name> = parts, and that its SHA-256 is right. */
static int write_text(const char *folder, const char *name, const void *const *parts,
                      const size_t *sizes, int count, const char *sha256)
{
    char *path = joined(folder, name);
    int code = CLI_FAILED;
    if (path && write_file(path, parts, sizes, count) != ATTN_OK) {
        cli_fail_attn(NULL);
    } else if (path) {
        code = check(folder, name, sha256);
    }
    free(path);
    return code;
}

/* The texts of the database as files in `folder`. */
static int write_texts(const unsigned char *database, size_t size, const char *folder)
{
    char *texts[NOVELS] = {NULL};
    const void *parts[NOVELS];
    size_t at = 0, sizes[NOVELS], length;
    int code = CLI_OK;
    for (int i = 0; i < NOVELS && code == CLI_OK; i++) {
        int place = novels[i].place;
        if (rdata_next(database, size, &at, &texts[i], &length) != ATTN_OK) {
            code = cli_fail("the database of " PACKAGE " cannot be read: %s", attn_last_error());
            break;
        }
        parts[place] = texts[i];
        sizes[place] = length;
        code = write_text(folder, novels[i].file, &parts[place], &length, 1, novels[i].sha256);
    }
    if (code == CLI_OK) {
        code = write_text(folder, "novels.txt", parts, sizes, NOVELS, WHOLE);
    }
    for (int i = 0; i < NOVELS; i++) {
        free(texts[i]);
    }
    return code;
}

/* Moves the finished folder to its name; what was there goes into the temporary one. */
static int move_into_place(const char *cache, const char *temporary, const char *made)
{
    char *place = joined(cache, "novels"), *old = joined(temporary, "old");
    int code = CLI_FAILED;
    if (place && old) {
        bool moved = rename(place, old) == 0 || errno == ENOENT;
        if (moved && chmod(made, 0755) == 0 && rename(made, place) == 0) {
            code = CLI_OK;
        } else {
            cli_fail("%s cannot be written: %s", place, strerror(errno));
        }
    }
    free(place);
    free(old);
    return code;
}

static int fetch_into(const char *cache)
{
    char *folder = fetch_temporary(cache);
    char *member = folder ? joined(folder, MEMBER) : NULL;
    char *made = folder ? joined(folder, "novels") : NULL;
    unsigned char *database = NULL;
    size_t size = 0;
    int code = CLI_FAILED;
    if (member && made) {
        code = unpack(cache, folder);
    }
    if (code == CLI_OK) {
        database = read_database(member, &size);
        code = database && mkdir(made, 0700) == 0 ? write_texts(database, size, made) : CLI_FAILED;
    }
    if (code == CLI_OK) {
        code = move_into_place(cache, folder, made);
    }
    if (folder) {
        fetch_remove_tree(folder);
    }
    free(database);
    free(member);
    free(made);
    free(folder);
    return code;
}

int cli_novels_fetch(bool quiet)
{
    char *cache = cli_cache_folder(), *path = cache ? cli_novels_path() : NULL;
    char *folder = cache ? joined(cache, "novels") : NULL;
    int code = CLI_FAILED;
    struct stat info;
    if (path && folder) {
        cli_interrupt_catch();
        bool there = stat(path, &info) == 0 && info.st_size == cli_novels.bytes;
        if (there && quiet) {
            code = CLI_OK;
        } else if (there && (code = check(folder, "novels.txt", WHOLE)) != CLI_FAILED) {
            if (code == CLI_OK) {
                cli_note("the novels are here, their SHA-256 is right: %s", path);
            }
        } else {
            cli_note("fetching %s: %.0f MB, %s, from the %s", cli_novels.title,
                     (double)cli_novels.bytes / 1e6, cli_novels.licence, cli_novels.source);
            code = fetch_into(cache);
            if (code == CLI_OK) {
                cli_note("the novels are here now, their SHA-256 is right: %s", path);
            }
        }
    }
    free(folder);
    free(path);
    free(cache);
    return code;
}
