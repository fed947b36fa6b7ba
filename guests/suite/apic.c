/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local APIC and the I/O APIC, as kernels use them on start. */
#include "../lib/platform.h"
#include "../lib/ports.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

#define LOCAL_APIC 0xFEE00000u
#define IO_APIC 0xFEC00000u

/* Registers of the local APIC (Intel SDM volume 3, table 10-1). */
enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_EOI = 0xB0,
    APIC_SPURIOUS = 0xF0,
    APIC_ISR = 0x100,
    APIC_IRR = 0x200,
    APIC_ICR_LOW = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_INITIAL_COUNT = 0x380,
    APIC_CURRENT_COUNT = 0x390,
    APIC_DIVIDE = 0x3E0,
};

enum {
    APIC_ENABLE = 1 << 8,
    LVT_MASKED = 1 << 16,
    TIMER_PERIODIC = 1 << 17,
    ICR_SELF = 1 << 18,
    MODE_NMI = 4 << 8, /* of a message or an entry */
    VECTOR_NMI = 2,
    DIVIDE_BY_1 = 0xB,
    TEST_VECTOR = 0x61,
    TIMER_VECTOR = 0x72,
    SPURIOUS_VECTOR = 0xFF,
    COUNT = 20000,
    PATIENCE = 2000000, /* turns of a loop that waits for an interrupt */
};

static volatile unsigned arrived[VECTORS];

static volatile uint32_t *apic(word offset)
{
    return at(LOCAL_APIC + offset);
}

static bool hook_count(struct frame *frame)
{
    if (frame->vector < 32 || frame->vector == USER_RETURN_VECTOR)
        return false;
    arrived[frame->vector]++;
    *apic(APIC_EOI) = 0;
    return true;
}

static void open_window(void)
{
    __asm__ volatile("sti; nop; nop; cli" : : : "memory");
}

/* What the case before may have left pending is let in before counting begins. */
static void set_up(void)
{
    require(has_base(BASE_APIC), "the CPU has no APIC");
    map(space, LOCAL_APIC, LOCAL_APIC, WRITABLE | CACHE_DISABLE);
    map(space, IO_APIC, IO_APIC, WRITABLE | CACHE_DISABLE);
    *apic(APIC_SPURIOUS) = APIC_ENABLE | SPURIOUS_VECTOR;
    *apic(APIC_TPR) = 0;
    *apic(APIC_LVT_TIMER) = LVT_MASKED;
    *apic(APIC_LVT_LINT0) = LVT_MASKED;
    *apic(APIC_DIVIDE) = DIVIDE_BY_1;
    trap_hook = hook_count;
    open_window();
    for (unsigned vector = 0; vector < VECTORS; vector++)
        arrived[vector] = 0;
}

static bool wait_for(unsigned vector, unsigned count)
{
    for (unsigned turn = 0; turn < PATIENCE && arrived[vector] < count; turn++)
        open_window();
    return arrived[vector] >= count;
}

static void send_self(unsigned vector)
{
    *apic(APIC_ICR_LOW) = ICR_SELF | vector;
}

static void check_registers(word unused)
{
    (void)unused;
    set_up();
    expect("ID", 0, *apic(APIC_ID) >> 24);
    expect_true("the version is that of an integrated APIC", (*apic(APIC_VERSION) & 0xFF) >= 0x10);
    expect_true("it has at least 4 local vectors", (*apic(APIC_VERSION) >> 16 & 0xFF) >= 3);
    expect("spurious vector", APIC_ENABLE | SPURIOUS_VECTOR, *apic(APIC_SPURIOUS) & 0x1FF);
}

static void check_self(word unused)
{
    (void)unused;
    set_up();
    send_self(TEST_VECTOR);
    expect("arrived with IF clear", 0, arrived[TEST_VECTOR]);
    expect("request bit", 1, *apic(APIC_IRR + (TEST_VECTOR / 32) * 16) >> TEST_VECTOR % 32 & 1);
    open_window();
    expect("arrived with IF set", 1, arrived[TEST_VECTOR]);
    expect("request bit after", 0, *apic(APIC_IRR + (TEST_VECTOR / 32) * 16) >> TEST_VECTOR % 32 & 1);
    expect("in-service bit after EOI", 0, *apic(APIC_ISR + (TEST_VECTOR / 32) * 16) >> TEST_VECTOR % 32 & 1);
}

static void check_priority(word unused)
{
    (void)unused;
    set_up();
    *apic(APIC_TPR) = 0x60;
    send_self(TEST_VECTOR);
    open_window();
    expect("arrived below the task's priority", 0, arrived[TEST_VECTOR]);
    send_self(0x70);
    open_window();
    expect("arrived above it", 1, arrived[0x70]);
    *apic(APIC_TPR) = 0x50;
    open_window();
    expect("arrived when the priority fell", 1, arrived[TEST_VECTOR]);
    *apic(APIC_TPR) = 0;
}

/* No second interrupt of the same priority before EOI. */
static bool hook_without_eoi(struct frame *frame)
{
    if (frame->vector < 32)
        return false;
    arrived[frame->vector]++;
    return true;
}

static uint32_t read_io(unsigned index)
{
    *at(IO_APIC) = index;
    return *at(IO_APIC + 0x10);
}

static void write_io(unsigned index, uint32_t value)
{
    *at(IO_APIC) = index;
    *at(IO_APIC + 0x10) = value;
}

enum { IO_VERSION = 1, IO_TABLE = 0x10, PIT_PIN = 2, PIT_RATE = 11932, PIT_MODE_RATE = 0x34 };

/* ---- NMIs ---- */

static unsigned nmis, deepest, depth;
static word nmi_ip;

/* QEMU looks for events behind jumps. */
static void pass(void)
{
    __asm__ volatile("jmp 1f; 1: jmp 2f; 2: nop" : : : "memory");
}

static void send_nmi(void)
{
    *apic(APIC_ICR_HIGH) = 0;
    *apic(APIC_ICR_LOW) = MODE_NMI; /* to this processor by its number: a shorthand may not be used */
}

/* In the handler of the first two more are sent, of which one is kept until IRET. */
static bool hook_nmi(struct frame *frame)
{
    if (frame->vector != VECTOR_NMI)
        return false;
    if (++depth > deepest)
        deepest = depth;
    nmi_ip = frame->ip;
    if (++nmis == 1) {
        send_nmi();
        send_nmi();
        pass();
    }
    depth--;
    return true;
}

static void set_up_nmi(void)
{
    set_up();
    nmis = deepest = depth = 0;
    trap_hook = hook_nmi;
}

static void check_nmi(word unused)
{
    (void)unused;
    set_up_nmi();
    send_nmi(); /* with IF clear */
    pass();
    expect("NMIs: the first, and one of the two sent while it was served", 2, nmis);
    expect("at once", 1, deepest);
    send_nmi();
    pass();
    expect("NMIs after that", 3, nmis);
}

/* An NMI in the shadow of a load of SS comes behind the next instruction; one that waits when HLT begins ends it, IF clear or not. */
static void check_nmi_and_halt(word unused)
{
    (void)unused;
    set_up_nmi();
    nmis = 1; /* send no more */
    write_io(IO_TABLE + 2 * PIT_PIN + 1, 0);
    write_io(IO_TABLE + 2 * PIT_PIN, MODE_NMI);
    outb(PIT_COMMAND_PORT, PIT_MODE_RATE);
    outb(PIT_CHANNEL0_PORT, PIT_RATE & 0xFF);
    outb(PIT_CHANNEL0_PORT, PIT_RATE >> 8);
    __asm__ volatile("cli; hlt" : : : "memory");
    write_io(IO_TABLE + 2 * PIT_PIN, LVT_MASKED | MODE_NMI);
    expect_true("the timer's NMI ended HLT", nmis >= 2);
    expect("at once", 1, deepest);
}

/* LINT0, where the 8259s are, in NMI mode: a request of theirs is an NMI. */
static void check_nmi_by_lint0(word unused)
{
    uint8_t mask = inb(PIC_MASTER_DATA_PORT);

    (void)unused;
    set_up_nmi();
    nmis = 1;
    outb(PIC_MASTER_DATA_PORT, 0xFF);
    *apic(APIC_LVT_LINT0) = MODE_NMI;
    outb(PIT_COMMAND_PORT, PIT_MODE_RATE);
    outb(PIT_CHANNEL0_PORT, PIT_RATE & 0xFF);
    outb(PIT_CHANNEL0_PORT, PIT_RATE >> 8);
    outb(PIC_MASTER_DATA_PORT, 0xFE);
    __asm__ volatile("cli; hlt" : : : "memory");
    outb(PIC_MASTER_DATA_PORT, mask);
    *apic(APIC_LVT_LINT0) = LVT_MASKED;
    expect_true("the timer's NMI ended HLT", nmis >= 2);
}

/* ---- priorities ---- */

static void check_end_of_interrupt(word unused)
{
    (void)unused;
    set_up();
    trap_hook = hook_without_eoi;
    send_self(TEST_VECTOR);
    open_window();
    send_self(TEST_VECTOR + 1);
    open_window();
    expect("first", 1, arrived[TEST_VECTOR]);
    expect("second before EOI", 0, arrived[TEST_VECTOR + 1]);
    *apic(APIC_EOI) = 0;
    open_window();
    expect("second after EOI", 1, arrived[TEST_VECTOR + 1]);
    *apic(APIC_EOI) = 0;
}

static void check_one_shot(word unused)
{
    (void)unused;
    set_up();
    *apic(APIC_LVT_TIMER) = TIMER_VECTOR;
    *apic(APIC_INITIAL_COUNT) = COUNT;
    expect_true("it comes", wait_for(TIMER_VECTOR, 1));
    expect("count at its end", 0, *apic(APIC_CURRENT_COUNT));
    for (unsigned i = 0; i < 20000; i++)
        open_window();
    expect("times", 1, arrived[TIMER_VECTOR]);
}

static void check_periodic(word unused)
{
    (void)unused;
    set_up();
    *apic(APIC_LVT_TIMER) = TIMER_PERIODIC | TIMER_VECTOR;
    *apic(APIC_INITIAL_COUNT) = COUNT;
    expect_true("it comes five times", wait_for(TIMER_VECTOR, 5));
    *apic(APIC_INITIAL_COUNT) = 0;
    expect("count when stopped", 0, *apic(APIC_CURRENT_COUNT));
}

static void check_masked(word unused)
{
    (void)unused;
    set_up();
    *apic(APIC_LVT_TIMER) = LVT_MASKED | TIMER_VECTOR;
    *apic(APIC_INITIAL_COUNT) = COUNT;
    for (unsigned i = 0; i < PATIENCE && *apic(APIC_CURRENT_COUNT); i++)
        ;
    open_window();
    expect("times, masked", 0, arrived[TIMER_VECTOR]);
}

static void check_io_registers(word unused)
{
    (void)unused;
    set_up();
    expect_true("it has 24 pins", (read_io(IO_VERSION) >> 16 & 0xFF) == 23);
    write_io(IO_TABLE + 2 * 5, LVT_MASKED | 0x55);
    expect("entry read back", LVT_MASKED | 0x55, read_io(IO_TABLE + 2 * 5));
}

/* The timer of old by its pin of the I/O APIC. */
static void check_io_timer(word unused)
{
    (void)unused;
    set_up();
    write_io(IO_TABLE + 2 * PIT_PIN + 1, 0);
    write_io(IO_TABLE + 2 * PIT_PIN, TEST_VECTOR);
    outb(PIT_COMMAND_PORT, PIT_MODE_RATE);
    outb(PIT_CHANNEL0_PORT, PIT_RATE & 0xFF);
    outb(PIT_CHANNEL0_PORT, PIT_RATE >> 8);
    expect_true("it comes twice", wait_for(TEST_VECTOR, 2));
    write_io(IO_TABLE + 2 * PIT_PIN, LVT_MASKED | TEST_VECTOR);
}

static const struct test_case cases[] = {
    {"apic.registers", check_registers, 0},
    {"apic.self-interrupt", check_self, 0},
    {"apic.task-priority", check_priority, 0},
    {"apic.end-of-interrupt", check_end_of_interrupt, 0},
    {"apic.nmi", check_nmi, 0},
    {"apic.nmi-ends-halt", check_nmi_and_halt, 0},
    {"apic.nmi-by-lint0", check_nmi_by_lint0, 0},
    {"apic.timer-one-shot", check_one_shot, 0},
    {"apic.timer-periodic", check_periodic, 0},
    {"apic.timer-masked", check_masked, 0},
    {"apic.io-registers", check_io_registers, 0},
    {"apic.io-timer", check_io_timer, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
