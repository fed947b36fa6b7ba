/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "system.h"

void seconds_start(struct seconds *at, uint32_t seconds)
{
    at->start = now();
    at->passed = 0;
    at->wanted = seconds;
}

bool second_has_ended(struct seconds *at)
{
    uint32_t passed = (now() - at->start) / TICKS_PER_SECOND;

    if (passed == at->passed)
        return false;
    at->passed = passed;
    return true;
}

bool seconds_are_over(const struct seconds *at)
{
    return at->passed >= at->wanted;
}
