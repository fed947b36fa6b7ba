/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "user.h"

#include "interrupts.h"

void user_return(void); /* user.S */

void user_init(void)
{
    set_gate(USER_RETURN_VECTOR, user_return, 3);
}
