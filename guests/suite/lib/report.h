/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The line protocol of the suite, on COM1: PASS, FAIL or SKIP a case, then the count.
 *
 *   PASS name
 *   FAIL name: expected X, seen Y (of what)
 *   SKIP name: why
 *   3 passed, 0 failed, 1 skipped
 */
#ifndef REPORT_H
#define REPORT_H

#include "arch.h"

struct test_case {
    const char *name;
    void (*run)(word parameter);
    word parameter;
};

/* Runs them in order, each with a fresh address space and fresh memory, and ends the guest with their verdict. */
_Noreturn void run_cases(const struct test_case *cases, unsigned count);
#define RUN_CASES(cases) run_cases(cases, sizeof(cases) / sizeof *(cases))

/* Each ends the case unless it holds. `what` names the quantity. */
void expect(const char *what, uint64_t expected, uint64_t seen);
void expect_true(const char *what, bool holds);
void require(bool holds, const char *why_not);

/* Knows %s, %u and %llx. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Each guest defines this. */
_Noreturn void suite_main(void);

#endif
