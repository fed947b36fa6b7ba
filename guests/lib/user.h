/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A short stay in ring 3. */
#ifndef USER_H
#define USER_H

#define USER_RETURN_VECTOR 0x81

#ifndef __ASSEMBLER__
#include <stdint.h>

/* Sets up the way back. */
void user_init(void);

/*
 * Runs code in ring 3, interrupts off, with the argument in EDI, until it executes INT USER_RETURN_VECTOR; returns
 * its EAX. The code may use any general register.
 */
uint32_t user_call(uint32_t eip, uint32_t esp, uint32_t argument);
#endif

#endif
