/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8254's channel 0 as a periodic timer on PIT_IRQ. */
#ifndef PIT_H
#define PIT_H

#include <stdint.h>

/* From 19 Hz, where the 16-bit divisor ends. */
void pit_start(uint32_t hertz);

#endif
