/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine as its ACPI and MP tables describe it: one processor, a local APIC, an I/O APIC, an ISA bus, two 8259. */
#ifndef FIRMWARE_PLATFORM_H
#define FIRMWARE_PLATFORM_H

#define LOCAL_APIC_ADDRESS 0xfee00000
#define LOCAL_APIC_ID 0
#define LOCAL_APIC_VERSION 0x14 /* an integrated one with six local vectors */

#define IO_APIC_ADDRESS 0xfec00000
#define IO_APIC_ID 1
#define IO_APIC_VERSION 0x11 /* Intel's 82093AA */
#define IO_APIC_GSI_BASE 0
#define IO_APIC_INPUTS 24

#define ISA_IRQ_TIMER 0
#define ISA_IRQ_CASCADE 2 /* the second 8259; no interrupt of its own */
#define ISA_IRQ_SCI 9
#define ISA_IRQS 16
#define TIMER_GSI 2 /* the 8254 is wired to this input of the I/O APIC; every other ISA interrupt to the one of its number */

#define LINT_EXTINT 0 /* the local APIC's pin for the 8259 */
#define LINT_NMI 1

/* CPUID leaf 1 of the processor, EAX and EDX: family 15, model 6, stepping 1. */
#define CPU_SIGNATURE 0xf61
#define CPU_FEATURES 0x78bbb7d

#define TABLE_OEM_ID "EMU   "         /* six characters */
#define TABLE_OEM_TABLE_ID "EMUTABLE" /* eight */
#define MP_OEM_ID "EMU     "          /* eight */
#define MP_PRODUCT_ID "EMU PC      "  /* twelve */

#endif
