/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "interrupts.h"

#include <stddef.h>

#include "exit.h"
#include "pic.h"
#include "print.h"
#include "segments.h"

/*
 * An interrupt gate: handler 31-16 | present, ring, type | zero | selector | handler 15-0. Type 14 clears IF on
 * entry, so handlers are never interrupted.
 */
struct gate {
    uint16_t handler_low;
    uint16_t selector;
    uint8_t zero;
    uint8_t access;
    uint16_t handler_high;
};

enum { GATE_PRESENT = 0x80, GATE_RING_SHIFT = 5, GATE_INTERRUPT_32 = 0x0E };
enum { STUB_BYTES = 16 };

struct table_register {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

extern char interrupt_stubs[]; /* VECTORS pieces of code, STUB_BYTES apart */

static struct gate idt[VECTORS] __attribute__((aligned(8)));
static interrupt_handler handlers[VECTORS];

static void set_gate_address(unsigned vector, uint32_t entry, unsigned ring)
{
    idt[vector] = (struct gate){
        .handler_low = (uint16_t)entry,
        .selector = KERNEL_CODE,
        .access = (uint8_t)(GATE_PRESENT | ring << GATE_RING_SHIFT | GATE_INTERRUPT_32),
        .handler_high = (uint16_t)(entry >> 16),
    };
}

static uint32_t stub_address(unsigned vector)
{
    return (uint32_t)interrupt_stubs + vector * STUB_BYTES;
}

void set_gate(unsigned vector, void (*entry)(void), unsigned ring)
{
    set_gate_address(vector, (uint32_t)entry, ring);
}

void open_to_ring3(unsigned vector)
{
    set_gate_address(vector, stub_address(vector), 3);
}

void set_handler(unsigned vector, interrupt_handler handler)
{
    handlers[vector] = handler;
}

bool is_from_ring3(const struct frame *frame)
{
    return (frame->cs & 3) == 3;
}

static _Noreturn void end_unexpected(const struct frame *frame)
{
    kprintf("unexpected interrupt %u at %02x:%08x, error %x\n", frame->vector, frame->cs, frame->eip, frame->error);
    guest_exit(EXIT_UNEXPECTED);
}

/* Called by stubs.S. */
void dispatch_interrupt(struct frame *frame)
{
    interrupt_handler handler = handlers[frame->vector];

    if (!handler)
        end_unexpected(frame);
    handler(frame);
}

void interrupts_init(void)
{
    struct table_register idtr = {sizeof idt - 1, (uint32_t)idt};

    for (unsigned vector = 0; vector < VECTORS; vector++)
        set_gate_address(vector, stub_address(vector), 0);
    __asm__ volatile("lidt %0" : : "m"(idtr) : "memory");
    pic_init();
}
