/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pit.h"

#include "platform.h"
#include "ports.h"

enum { CHANNEL0_LOW_HIGH_RATE = 0x34 }; /* both bytes, mode 2: one pulse each period */

void pit_start(uint32_t hertz)
{
    uint32_t divisor = PIT_FREQUENCY_HZ / hertz;

    outb(PIT_COMMAND_PORT, CHANNEL0_LOW_HIGH_RATE);
    outb(PIT_CHANNEL0_PORT, (uint8_t)divisor);
    outb(PIT_CHANNEL0_PORT, (uint8_t)(divisor >> 8));
}
