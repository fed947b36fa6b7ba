/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "probe.h"

#include "exit.h"
#include "interrupts.h"
#include "paging.h"
#include "print.h"
#include "user.h"

/* probe.S: the accesses, and where to go on when one has faulted. */
uint32_t probe_load_raw(uint32_t va);
void probe_store_raw(uint32_t va, uint32_t value);
void probe_call_raw(uint32_t va);
extern uint32_t probe_resume; /* address; zero while no probe is under way */

bool (*probe_repair)(uint32_t va, uint32_t error);

static struct probe last;

static _Noreturn void end_unexpected(const struct frame *frame)
{
    char name[FAULT_NAME_BYTES];

    kprintf("unexpected page fault at %08x, error %s, eip %08x\n", read_cr2(), fault_name(frame->error, name),
            frame->eip);
    guest_exit(EXIT_UNEXPECTED);
}

static void handle_page_fault(struct frame *frame)
{
    uint32_t va = read_cr2();

    if (probe_repair && probe_repair(va, frame->error))
        return;
    if (!probe_resume)
        end_unexpected(frame);
    last = (struct probe){.faulted = true, .error = frame->error, .address = va};
    frame->eip = probe_resume;
}

void probe_init(void)
{
    set_handler(VECTOR_PAGE_FAULT, handle_page_fault);
}

struct probe probe_load(uint32_t va)
{
    uint32_t value;

    last = (struct probe){0};
    value = probe_load_raw(va);
    if (!last.faulted)
        last.value = value;
    return last;
}

struct probe probe_store(uint32_t va, uint32_t value)
{
    last = (struct probe){0};
    probe_store_raw(va, value);
    return last;
}

struct probe probe_call(uint32_t va)
{
    last = (struct probe){0};
    probe_call_raw(va);
    return last;
}

struct probe probe_from_ring3(uint32_t eip, uint32_t resume, uint32_t esp, uint32_t va)
{
    uint32_t value;

    last = (struct probe){0};
    probe_resume = resume;
    value = user_call(eip, esp, va);
    probe_resume = 0;
    if (!last.faulted)
        last.value = value;
    return last;
}
