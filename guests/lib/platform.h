/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the guests and the virtual machine must agree on: ports, interrupt lines and magic numbers.
 *
 * Every line is a plain `#define NAME value`, value a decimal or 0x number, so that assembly can include
 * this page and a test can compare it with the machine's own constants.
 */
#ifndef PLATFORM_H
#define PLATFORM_H

/* COM1: a 16550 UART. */
#define COM1_PORT 0x3F8
#define COM1_IRQ 4

/* The pair of 8259 interrupt controllers; the slave hangs on the master's line 2. */
#define PIC_MASTER_COMMAND_PORT 0x20
#define PIC_MASTER_DATA_PORT 0x21
#define PIC_SLAVE_COMMAND_PORT 0xA0
#define PIC_SLAVE_DATA_PORT 0xA1
#define PIC_CASCADE_IRQ 2

/* The 8254 timer; channel 0 drives IRQ 0. */
#define PIT_CHANNEL0_PORT 0x40
#define PIT_CHANNEL2_PORT 0x42
#define PIT_COMMAND_PORT 0x43
#define PIT_GATE_PORT 0x61
#define PIT_FREQUENCY_HZ 1193182
#define PIT_IRQ 0

/* CMOS and real-time clock. */
#define CMOS_INDEX_PORT 0x70
#define CMOS_DATA_PORT 0x71

/* Power-on self-test codes: nobody listens, so a guest may mark its phases here. */
#define POST_PORT 0x80

/* Fast A20 gate. */
#define A20_PORT 0x92

/* A byte written here appears on the host's debug console. */
#define BOCHS_DEBUG_PORT 0xE9

/* A value written here ends the run; zero is success. */
#define EXIT_PORT 0xF4

/* Multiboot 1. */
#define MULTIBOOT_HEADER_MAGIC 0x1BADB002
#define MULTIBOOT_BOOT_MAGIC 0x2BADB002
#define MULTIBOOT_HEADER_FLAGS 0x3
#define MULTIBOOT_INFO_MEMORY 0x1
#define MULTIBOOT_INFO_CMDLINE 0x4
#define MULTIBOOT_INFO_MODULES 0x8
#define MULTIBOOT_INFO_MMAP 0x40
#define MULTIBOOT_MEMORY_AVAILABLE 1

/* Where a kernel is loaded. */
#define KERNEL_LOAD_ADDRESS 0x100000

#endif
