/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Does nothing for a number of seconds. */
#include "lib/system.h"

int main(int argc, char **argv)
{
    static uint32_t seconds = 10;
    static const struct option options[] = {{"seconds", &seconds, NULL}};

    parse_arguments(argc, argv, options, 1);
    for (uint32_t second = 1; second <= seconds; second++) {
        sleep(TICKS_PER_SECOND);
        print("idle second=%u\n", second);
    }
    print("idle summary seconds=%u\n", seconds);
    return 0;
}
