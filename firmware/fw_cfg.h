/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fw_cfg, QEMU's way for a platform to tell its firmware about itself (QEMU manual, "QEMU Firmware Configuration
 * (fw_cfg) Device"): numbered items, read byte by byte at a port or by DMA, and files found by name in a directory item.
 * Integers of the interface itself are big-endian; the items of opt/emu/ are little-endian.
 */
#ifndef FIRMWARE_FW_CFG_H
#define FIRMWARE_FW_CFG_H

#include "io.h"

#define FW_CFG_PORT_SELECTOR 0x510 /* 16 bits, write: selects an item and rewinds it */
#define FW_CFG_PORT_DATA 0x511     /* 8 bits, read: the next byte of the item */
#define FW_CFG_PORT_DMA_HIGH 0x514 /* 32 bits, big-endian: address of a fw_cfg_dma record, bits 63-32 */
#define FW_CFG_PORT_DMA_LOW 0x518  /* bits 31-0; this write starts the transfer */

#define FW_CFG_KEY_SIGNATURE 0x00 /* "QEMU" */
#define FW_CFG_KEY_RAM_BYTES 0x03 /* u64, little-endian */
#define FW_CFG_KEY_DIRECTORY 0x19 /* u32 count, then fw_cfg_directory_entry */

/* fw_cfg_dma.control, before byte order */
#define FW_CFG_DMA_ERROR 0x01
#define FW_CFG_DMA_READ 0x02
#define FW_CFG_DMA_SKIP 0x04
#define FW_CFG_DMA_SELECT 0x08 /* rewind and select the item whose key is in bits 31-16 first */
#define FW_CFG_DMA_KEY_SHIFT 16

struct fw_cfg_dma {
    u32 control; /* the device writes 0 when done, or FW_CFG_DMA_ERROR */
    u32 length;  /* bytes */
    u64 address; /* physical */
};

#define FW_CFG_NAME_BYTES 56

struct fw_cfg_directory_entry {
    u32 size; /* bytes */
    u16 key;
    u16 reserved;
    char name[FW_CFG_NAME_BYTES]; /* NUL-terminated */
};

_Static_assert(sizeof(struct fw_cfg_dma) == 16, "layout fixed by the device");
_Static_assert(sizeof(struct fw_cfg_directory_entry) == 64, "layout fixed by the device");

/* A file of the directory; an absent one has size 0. */
struct fw_cfg_file {
    u32 size; /* bytes */
    u16 key;
};

/* Whether the device is there at all. */
int fw_cfg_is_present(void);

/* The machine's RAM, in bytes. */
u64 fw_cfg_ram_bytes(void);

/* Finds files[i] by names[i] for each i below count. */
void fw_cfg_find(const char *const names[], struct fw_cfg_file files[], u32 count);

/* Reads the first `length` bytes of an item, or its next ones, to `destination`. Returns 0 if the device refused. */
int fw_cfg_read_first(u16 key, void *destination, u32 length);
int fw_cfg_read_next(void *destination, u32 length);

/* Reads `length` bytes of an item from byte `offset` on; beyond its end they are zero. Returns 0 if the device refused. */
int fw_cfg_read_at(u16 key, u32 offset, void *destination, u32 length);

#endif
