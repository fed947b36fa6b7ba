/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making room: the pager, and what happens when nothing can be taken back. */
#ifndef RECLAIM_H
#define RECLAIM_H

#include "arch.h"

/* Starts the threads: the pager, and the one that writes dirty pages every few seconds. */
void reclaim_init(void);
void wake_pager(void);

/* For frame_alloc: sleeps until the pager made room; false if it cannot, or if the caller is to die. */
bool wait_for_room(void);

#endif
