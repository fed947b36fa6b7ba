/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a guest ends. */
#ifndef EXIT_H
#define EXIT_H

enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1,          /* a check of the guest's own did not hold */
    EXIT_UNEXPECTED = 2,      /* an exception or interrupt that nobody handles */
    EXIT_BAD_BOOT = 3,        /* the loader did not keep to multiboot, or memory is too small */
    EXIT_BAD_ARGUMENTS = 4,   /* the command line */
};

/* Ends the run with this status. Where there is no debug-exit port, halts for ever. */
_Noreturn void guest_exit(int status);

/* Prints "FAILED: message" and ends the run with EXIT_FAILED. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
