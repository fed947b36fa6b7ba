/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Takes memory and writes to it, without end or up to a size, until the system refuses or kills it. */
#include "lib/system.h"

enum { PAGE = 4096, STEP_PAGES = 64 };

int main(int argc, char **argv)
{
    static uint32_t size = 1u << 30, hold;
    static const struct option options[] = {{"size", &size, NULL}, {"hold", &hold, NULL}};
    uint32_t pages = 0;
    uint8_t *from = NULL;

    parse_arguments(argc, argv, options, sizeof options / sizeof *options);
    for (; pages < size / PAGE; pages += STEP_PAGES) {
        uint8_t *at = sbrk(STEP_PAGES * PAGE);

        if (!at)
            break;
        from = from ? from : at;
        for (uint32_t page = 0; page < STEP_PAGES; page++)
            *(uint32_t *)(at + page * PAGE) = mix(pages, page, 1);
        if (pages % 1024 == 0)
            print("memhog pages=%u\n", pages);
    }
    sleep(hold * TICKS_PER_SECOND);
    for (uint32_t page = 0; page < pages; page++)
        if (*(uint32_t *)(from + (size_t)page * PAGE) != mix(page / STEP_PAGES * STEP_PAGES, page % STEP_PAGES, 1))
            die("FAIL memhog: page %u is not what it was", page);
    print("memhog summary pages=%u\n", pages);
    return 0;
}
