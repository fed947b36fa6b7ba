/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The interrupt descriptor table, and C handlers for its vectors. */
#ifndef INTERRUPTS_H
#define INTERRUPTS_H

#include <stdbool.h>
#include <stdint.h>

enum { VECTORS = 256, VECTOR_PAGE_FAULT = 14 };

/* The interrupted context as stubs.S leaves it on the stack, lowest address first. */
struct frame {
    uint32_t gs, fs, es, ds;
    uint32_t edi, esi, ebp, esp_ignored, ebx, edx, ecx, eax; /* PUSHAL */
    uint32_t vector;
    uint32_t error; /* zero for vectors without an error code */
    uint32_t eip, cs, eflags;
    uint32_t user_esp, user_ss; /* there only if the interrupt came from ring 3 */
};

typedef void (*interrupt_handler)(struct frame *frame);

/* Fills the IDT so that every vector reaches a C handler; those without one end the guest. */
void interrupts_init(void);
void set_handler(unsigned vector, interrupt_handler handler);

/* For entry code in assembly: the vector goes there directly. Ring is the outermost that may use INT. */
void set_gate(unsigned vector, void (*entry)(void), unsigned ring);

/* Lets ring 3 use INT with a vector that a C handler serves. */
void open_to_ring3(unsigned vector);

/* Leaves the kernel for the context in the frame. */
_Noreturn void resume_frame(const struct frame *frame);

bool is_from_ring3(const struct frame *frame);

static inline void interrupts_on(void)
{
    __asm__ volatile("sti" : : : "memory");
}

static inline void interrupts_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

/* STI takes effect one instruction late, so no interrupt can slip in between and be slept through. */
static inline void interrupts_on_and_halt(void)
{
    __asm__ volatile("sti; hlt" : : : "memory");
}

#endif
