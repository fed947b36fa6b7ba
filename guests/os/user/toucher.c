/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Touches a set of pages whose size follows a schedule, such as 4m@0,16m@10,2m@20 (bytes at a second), once round and again, and checks
 * that each page still has what it was given.
 */
#include "lib/system.h"

enum { PAGE = 4096, STEPS = 16 };

static uint32_t seconds = 10, seed = 1;
static const char *schedule = "4m@0";
static struct {
    uint32_t pages, at;
} steps[STEPS];
static unsigned step_count;

static void read_schedule(void)
{
    char text[32];

    for (const char *at = schedule; *at;) {
        unsigned length = 0;
        char *mark;

        while (*at && *at != ',' && length + 1 < sizeof text)
            text[length++] = *at++;
        text[length] = 0;
        at += *at == ',';
        for (mark = text; *mark && *mark != '@'; mark++)
            ;
        if (!*mark || step_count == STEPS)
            die("toucher: schedule '%s' is not SIZE@SECOND,...", schedule);
        *mark = 0;
        if (!parse_number(text, &steps[step_count].pages) || !parse_number(mark + 1, &steps[step_count].at))
            die("toucher: schedule '%s' is not SIZE@SECOND,...", schedule);
        steps[step_count++].pages /= PAGE;
    }
}

static uint32_t pages_due(uint32_t second)
{
    uint32_t pages = 0;

    for (unsigned i = 0; i < step_count; i++)
        if (steps[i].at <= second)
            pages = steps[i].pages;
    return pages;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seconds", &seconds, NULL}, {"seed", &seed, NULL}, {"schedule", NULL, &schedule}};
    struct seconds time;
    uint8_t *set;
    uint32_t pages = 0, next = 0, touched = 0, total = 0;

    parse_arguments(argc, argv, options, sizeof options / sizeof *options);
    read_schedule();
    set = (uint8_t *)(((uintptr_t)sbrk(PAGE) + PAGE - 1) & -(uintptr_t)PAGE);
    seconds_start(&time, seconds);
    while (!seconds_are_over(&time)) {
        uint32_t due = pages_due(time.passed);

        if (due != pages && !sbrk(((intptr_t)due - (intptr_t)pages) * PAGE))
            die("toucher: no memory for %u pages", due);
        for (uint32_t page = pages; page < due; page++)
            *(uint32_t *)(set + (size_t)page * PAGE) = mix(seed, page, 0);
        pages = due;
        for (unsigned i = 0; i < 64 && pages; i++, next++, touched++) {
            next = next < pages ? next : 0;
            if (*(volatile uint32_t *)(set + (size_t)next * PAGE) != mix(seed, next, 0))
                die("FAIL toucher: page %u is not what it was", next);
        }
        if (!pages)
            sleep(1);
        if (second_has_ended(&time)) {
            print("toucher second=%u pages=%u touched=%u\n", time.passed, pages, touched);
            total += touched;
            touched = 0;
        }
    }
    print("toucher summary seconds=%u touched=%u\n", time.passed, total);
    return 0;
}
