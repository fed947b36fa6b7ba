/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SYSTEM_CALLS_H
#define SYSTEM_CALLS_H

#include "../include/syscall.h"
#include "traps.h"

/* Carries out the call that the registers ask for, and puts the answer there. */
void system_call(struct registers *registers);

#endif
