/* SPDX-License-Identifier: GPL-2.0-or-later */
/* COM1: polled output, and input by polling or interrupt. */
#ifndef SERIAL_H
#define SERIAL_H

#include <stdbool.h>

void serial_init(void);
void serial_put(char c);

/* From now on each received byte raises COM1_IRQ. */
void serial_enable_receive_interrupt(void);
bool serial_has_input(void);
char serial_get(void);

#endif
