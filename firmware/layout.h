/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where things are, for C, assembly and the linker script.
 *
 *      0 +----------------------+ interrupt vectors of real mode (boot disks only)
 *    400 +----------------------+ BIOS_DATA
 *    500 +----------------------+ LOW_START: kernel segments and modules may lie from here
 *   7C00 |                      | a boot sector is loaded here
 *   9000 |                      | BOOT_TABLES: the multiboot information and what it points to, unless the platform names another place
 *  9FC00 +----------------------+ EBDA, the extended BIOS data area: what the services know of the machine
 *        | stack                | grows down to the data; the firmware uses no other RAM
 *  A0000 +----------------------+ STACK_TOP; video memory and adapter ROMs
 *  F0000 +----------------------+ ROM_BASE: this image, seen again at FFFF0000
 * 100000 +----------------------+ HIGH_MEMORY: RAM up to the machine's size
 */
#ifndef FIRMWARE_LAYOUT_H
#define FIRMWARE_LAYOUT_H

#define BIOS_DATA 0x400
#define LOW_START 0x500
#define A20_PROBE 0x7000 /* a byte to try line A20 with; it is zero afterwards */
#define BOOT_SECTOR 0x7c00
#define BOOT_TABLES 0x9000
#define BOOT_TABLES_BYTES 0x2800
#define EBDA 0x9fc00
#define STACK_TOP 0xa0000
#define VIDEO_MEMORY 0xa0000
#define TEXT_MEMORY 0xb8000
#define ROM_BASE 0xf0000
#define ROM_SEGMENT 0xf000 /* ROM_BASE in real mode */
#define ROM_BYTES 0x10000
#define RESET_OFFSET 0xfff0
#define HIGH_MEMORY 0x100000
#define ROM_HIGH_BASE 0xffff0000

/* RAM beyond this is not reported: PC chipsets keep the rest below 4 GiB for devices. */
#define LOW_RAM_LIMIT 0xc0000000

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_CODE16 0x18 /* as real mode has them: base ROM_BASE, 64 KiB */
#define SELECTOR_DATA16 0x20 /* base 0, 64 KiB */

#endif
