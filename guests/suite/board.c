/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a PC's firmware leaves for a kernel to find, and the serial port's interrupt. */
#include "../lib/platform.h"
#include "../lib/ports.h"
#include "lib/memory.h"
#include "lib/report.h"

#define BIOS_DATA 0x400u
#define EBDA 0x9FC00u

/* The BIOS data area (IBM PC AT Technical Reference, "BIOS data areas"): offsets. */
enum {
    BDA_COM1 = 0x00,
    BDA_EBDA_SEGMENT = 0x0E,
    BDA_EQUIPMENT = 0x10,
    BDA_MEMORY_KIB = 0x13,
    BDA_KEY_HEAD = 0x1A,
    BDA_KEY_TAIL = 0x1C,
    BDA_VIDEO_MODE = 0x49,
    BDA_COLUMNS = 0x4A,
    BDA_CRTC_PORT = 0x63,
    BDA_TICKS = 0x6C,
    BDA_DISKS = 0x75,
    BDA_KEYS_START = 0x80,
    BDA_KEYS_END = 0x82,
    BDA_LAST_ROW = 0x84,
};
enum { EQUIPMENT_FPU = 0x0002, EQUIPMENT_SERIAL_PORTS = 0x0E00, EQUIPMENT_ONE_SERIAL_PORT = 0x0200 };
enum { TEXT_MODE = 3, COLUMNS = 80, ROWS = 25, CRTC_PORT = 0x3D4, KEYS_START = 0x1E, KEYS_END = 0x3E };
#define TICKS_A_DAY 0x1800B0u

/* The serial port. */
enum { COM_DATA = COM1_PORT, COM_IER = COM1_PORT + 1, COM_IIR = COM1_PORT + 2, COM_MCR = COM1_PORT + 4, COM_LSR = COM1_PORT + 5 };
enum { IER_RECEIVED = 1, IER_TRANSMITTER = 2, IIR_RECEIVED = 4, IIR_TRANSMITTER = 2, IIR_CAUSE = 7, MCR_OUT2 = 8, MCR_LOOP = 0x10, LSR_EMPTY = 0x60 };

/* The interrupt controller. */
enum { PIC_INITIALIZE = 0x11, PIC_8086 = 1, PIC_READ_REQUESTS = 0x0A, PIC_VECTOR = 0x20 };

static uint32_t bios_data(unsigned offset, unsigned bytes)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint32_t)((volatile uint8_t *)(word)BIOS_DATA)[offset + i] << 8 * i;
    return value;
}

static void check_bios_data(word unused)
{
    (void)unused;
    expect("port of COM1", COM1_PORT, bios_data(BDA_COM1, 2));
    expect("FPU and one serial port", EQUIPMENT_FPU | EQUIPMENT_ONE_SERIAL_PORT,
           bios_data(BDA_EQUIPMENT, 2) & (EQUIPMENT_FPU | EQUIPMENT_SERIAL_PORTS));
    expect("video mode", TEXT_MODE, bios_data(BDA_VIDEO_MODE, 1));
    expect("columns", COLUMNS, bios_data(BDA_COLUMNS, 2));
    expect("the last row", ROWS - 1, bios_data(BDA_LAST_ROW, 1));
    expect("port of the CRTC", CRTC_PORT, bios_data(BDA_CRTC_PORT, 2));
    expect("keys from", KEYS_START, bios_data(BDA_KEYS_START, 2));
    expect("keys to", KEYS_END, bios_data(BDA_KEYS_END, 2));
    expect("keys that wait", bios_data(BDA_KEY_HEAD, 2), bios_data(BDA_KEY_TAIL, 2));
    expect("disks", 1, bios_data(BDA_DISKS, 1));
    expect_true("ticks of a day", bios_data(BDA_TICKS, 4) < TICKS_A_DAY);
}

static void check_extended_bios_data(word unused)
{
    (void)unused;
    expect("segment", EBDA >> 4, bios_data(BDA_EBDA_SEGMENT, 2));
    expect("KiB below it", EBDA / 1024, bios_data(BDA_MEMORY_KIB, 2));
    expect("its size in KiB", 1, *(volatile uint8_t *)(word)EBDA);
}

/* ---- IRQ 4 ---- */

static void start_controller(void)
{
    outb(PIC_MASTER_COMMAND_PORT, PIC_INITIALIZE);
    outb(PIC_MASTER_DATA_PORT, PIC_VECTOR);
    outb(PIC_MASTER_DATA_PORT, 1 << PIC_CASCADE_IRQ);
    outb(PIC_MASTER_DATA_PORT, PIC_8086);
    outb(PIC_MASTER_DATA_PORT, 0xFF);
}

static bool is_requested(void)
{
    outb(PIC_MASTER_COMMAND_PORT, PIC_READ_REQUESTS);
    return inb(PIC_MASTER_COMMAND_PORT) >> COM1_IRQ & 1;
}

/* A cause and what became of it are looked at first and reported when the port is as it was: reports go through it. */
static void check_transmitter_interrupt(word mcr)
{
    uint8_t before = inb(COM_MCR);

    start_controller();
    while ((inb(COM_LSR) & LSR_EMPTY) != LSR_EMPTY)
        continue;
    outb(COM_MCR, (uint8_t)mcr);
    bool was_quiet = !is_requested();
    outb(COM_IER, IER_TRANSMITTER);
    bool was_raised = is_requested();
    unsigned cause = inb(COM_IIR) & IIR_CAUSE;
    outb(COM_IER, 0);
    outb(COM_MCR, before);
    expect_true("quiet before", was_quiet);
    expect_true("IRQ 4 for the empty transmitter", was_raised);
    expect("its cause", IIR_TRANSMITTER, cause);
}

static void check_receiver_interrupt(word mcr)
{
    uint8_t before = inb(COM_MCR);

    start_controller();
    while ((inb(COM_LSR) & LSR_EMPTY) != LSR_EMPTY)
        continue;
    outb(COM_MCR, (uint8_t)(MCR_LOOP | mcr));
    outb(COM_IER, IER_RECEIVED);
    bool was_quiet = !is_requested();
    outb(COM_DATA, 0x5A);
    unsigned turns = 0;
    while (!is_requested() && turns < 1000000)
        turns++;
    bool was_raised = is_requested();
    unsigned cause = inb(COM_IIR) & IIR_CAUSE, data = inb(COM_DATA);
    outb(COM_IER, 0);
    outb(COM_MCR, before);
    expect_true("quiet before", was_quiet);
    expect_true("IRQ 4 for a byte", was_raised);
    expect("its cause", IIR_RECEIVED, cause);
    expect("the byte", 0x5A, data);
}

static const struct test_case cases[] = {
    {"board.bios-data", check_bios_data, 0},
    {"board.extended-bios-data", check_extended_bios_data, 0},
    {"board.transmitter-interrupt", check_transmitter_interrupt, MCR_OUT2},
    {"board.transmitter-interrupt-without-out2", check_transmitter_interrupt, 0},
    {"board.receiver-interrupt", check_receiver_interrupt, MCR_OUT2},
    {"board.receiver-interrupt-without-out2", check_receiver_interrupt, 0},
};

_Noreturn void suite_main(void)
{
    RUN_CASES(cases);
}
