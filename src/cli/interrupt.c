/**
 * cli/interrupt.c: Ctrl-C as a flag that long work asks for.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupts;

static void on_signal(int number)
{
    (void)number;
    if (interrupts) { /* asked a second time: do not wait for the work to notice */
        _exit(CLI_INTERRUPTED);
    }
    interrupts = 1;
}

void cli_interrupt_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = on_signal; /* no SA_RESTART: reading a terminal or a pipe shall end */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
}

bool cli_interrupted(void)
{
    return interrupts != 0;
}

bool cli_wait_input(void)
{
    /* Blocked between the look at the flag and the wait, a signal cannot slip in and be waited past. */
    sigset_t stop, before;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, &before);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (!interrupts && ppoll(&input, 1, NULL, &before) < 0 && errno == EINTR) {
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return !interrupts;
}

void cli_interrupt_clear(void)
{
    interrupts = 0;
}

bool cli_cancel(void *unused)
{
    (void)unused;
    return interrupts != 0;
}
