/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "report.h"

#include <stdarg.h>

#include "../../lib/exit.h"
#include "../../lib/platform.h"
#include "../../lib/ports.h"
#include "../../lib/serial.h"
#include "memory.h"
#include "traps.h"

enum verdict { PASSED, FAILED, SKIPPED, VERDICTS };

static const struct test_case *current;
static enum verdict verdict;
static word case_landing; /* where the current case ends, as traps.S keeps it */

static void put_string(const char *text)
{
    while (*text)
        serial_put(*text++);
}

static void put_decimal(uint32_t value)
{
    char digits[11];
    char *next = digits + sizeof digits;

    *--next = '\0';
    do
        *--next = (char)('0' + value % 10);
    while (value /= 10);
    put_string(next);
}

static void put_hex(uint64_t value)
{
    int shift = 60;

    while (shift > 0 && !(value >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        serial_put("0123456789abcdef"[value >> shift & 15]);
}

void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            serial_put(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            put_string(va_arg(arguments, const char *));
            break;
        case 'u':
            put_decimal(va_arg(arguments, uint32_t));
            break;
        default: /* "llx" */
            format += 2;
            put_hex(va_arg(arguments, unsigned long long));
        }
    }
    va_end(arguments);
}

static _Noreturn void end_case(enum verdict with)
{
    verdict = with;
    landing = case_landing;
    land();
}

void expect(const char *what, uint64_t expected, uint64_t seen)
{
    if (expected == seen)
        return;
    say("FAIL %s: expected %llx, seen %llx (%s)\n", current->name, (unsigned long long)expected,
        (unsigned long long)seen, what);
    end_case(FAILED);
}

void expect_true(const char *what, bool holds)
{
    if (holds)
        return;
    say("FAIL %s: expected %s, seen that it is not so\n", current->name, what);
    end_case(FAILED);
}

void require(bool holds, const char *why_not)
{
    if (holds)
        return;
    say("SKIP %s: %s\n", current->name, why_not);
    end_case(SKIPPED);
}

static void run_body(word parameter)
{
    case_landing = landing;
    current->run(parameter);
}

static enum verdict run_case(const struct test_case *test)
{
    struct outcome outcome;

    current = test;
    verdict = PASSED;
    traps_reset();
    memory_reset();
    outcome = try(run_body, test->parameter);
    if (verdict == PASSED && outcome.vector != NO_TRAP) {
        say("FAIL %s: expected no exception, seen vector %u, error %llx, at %llx, address %llx\n", test->name,
            outcome.vector, (unsigned long long)outcome.error, (unsigned long long)outcome.ip,
            (unsigned long long)outcome.address);
        return FAILED;
    }
    if (verdict == PASSED)
        say("PASS %s\n", test->name);
    return verdict;
}

void run_cases(const struct test_case *cases, unsigned count)
{
    uint32_t counts[VERDICTS] = {0};

    for (unsigned i = 0; i < count; i++)
        counts[run_case(&cases[i])]++;
    say("%u passed, %u failed, %u skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    guest_exit(counts[FAILED] ? EXIT_FAILED : EXIT_OK);
}
