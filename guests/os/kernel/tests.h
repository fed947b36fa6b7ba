/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_H
#define TESTS_H

/* The kernel's tests of its own parts; the exit status. */
int run_tests(void);

#endif
