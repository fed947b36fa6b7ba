/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pair of 8259 interrupt controllers: IRQ n arrives as vector IRQ_VECTOR_BASE + n. */
#ifndef PIC_H
#define PIC_H

#include "interrupts.h"

enum { IRQ_VECTOR_BASE = 0x20, IRQS = 16 };

/* Moves the IRQs away from the CPU's exceptions and masks them all. */
void pic_init(void);

/* Unmasks the IRQ; the handler need not care for the end of interrupt. */
void irq_enable(unsigned irq, interrupt_handler handler);

#endif
