/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BALLOON_THREAD_H
#define BALLOON_THREAD_H

/* Starts the balloon driver's thread. */
void balloon_start(void);

#endif
