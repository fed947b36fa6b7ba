/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pic.h"

#include "platform.h"
#include "ports.h"

enum {
    ICW1_INIT_WITH_ICW4 = 0x11,
    ICW4_8086 = 0x01,
    OCW2_END_OF_INTERRUPT = 0x20,
    OCW3_READ_IN_SERVICE = 0x0B,
    SPURIOUS_LINE = 7, /* where each chip reports a request that went away before it was acknowledged */
    LINES = 8,         /* of one chip */
};

static interrupt_handler irq_handlers[IRQS];

static void init_chip(uint16_t command, uint16_t data, uint8_t vector_base, uint8_t cascade)
{
    outb(command, ICW1_INIT_WITH_ICW4);
    outb(data, vector_base);
    outb(data, cascade);
    outb(data, ICW4_8086);
    outb(data, 0xFF);
}

void pic_init(void)
{
    init_chip(PIC_MASTER_COMMAND_PORT, PIC_MASTER_DATA_PORT, IRQ_VECTOR_BASE, 1 << PIC_CASCADE_IRQ);
    init_chip(PIC_SLAVE_COMMAND_PORT, PIC_SLAVE_DATA_PORT, IRQ_VECTOR_BASE + LINES, PIC_CASCADE_IRQ);
}

static void unmask(uint16_t data, unsigned line)
{
    outb(data, (uint8_t)(inb(data) & ~(1u << line)));
}

static uint16_t command_port(unsigned irq)
{
    return irq < LINES ? PIC_MASTER_COMMAND_PORT : PIC_SLAVE_COMMAND_PORT;
}

static bool is_spurious(unsigned irq)
{
    if (irq % LINES != SPURIOUS_LINE)
        return false;
    outb(command_port(irq), OCW3_READ_IN_SERVICE);
    return !(inb(command_port(irq)) & 1u << SPURIOUS_LINE);
}

static void end_of_interrupt(unsigned irq)
{
    outb(command_port(irq), OCW2_END_OF_INTERRUPT);
    if (irq >= LINES)
        outb(PIC_MASTER_COMMAND_PORT, OCW2_END_OF_INTERRUPT);
}

/* The end of interrupt comes first: the handler may leave for another context, and IF is clear anyway. */
static void handle_irq(struct frame *frame)
{
    unsigned irq = frame->vector - IRQ_VECTOR_BASE;

    if (is_spurious(irq))
        return;
    end_of_interrupt(irq);
    irq_handlers[irq](frame);
}

void irq_enable(unsigned irq, interrupt_handler handler)
{
    irq_handlers[irq] = handler;
    set_handler(IRQ_VECTOR_BASE + irq, handle_irq);
    if (irq < LINES) {
        unmask(PIC_MASTER_DATA_PORT, irq);
    } else {
        unmask(PIC_SLAVE_DATA_PORT, irq - LINES);
        unmask(PIC_MASTER_DATA_PORT, PIC_CASCADE_IRQ);
    }
}
