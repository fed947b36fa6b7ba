/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fw_cfg.h"

static void select_item(u16 key)
{
    out16(FW_CFG_PORT_SELECTOR, key);
}

static u8 next_byte(void)
{
    return in8(FW_CFG_PORT_DATA);
}

int fw_cfg_is_present(void)
{
    static const char signature[] = {'Q', 'E', 'M', 'U'};

    select_item(FW_CFG_KEY_SIGNATURE);
    for (u32 i = 0; i < sizeof signature; i++)
        if (next_byte() != signature[i])
            return 0;
    return 1;
}

u64 fw_cfg_ram_bytes(void)
{
    u64 bytes = 0;

    select_item(FW_CFG_KEY_RAM_BYTES);
    for (u32 shift = 0; shift < 64; shift += 8)
        bytes |= (u64)next_byte() << shift;
    return bytes;
}

static int transfer(u32 control, void *destination, u32 length)
{
    volatile struct fw_cfg_dma request = {
        .control = big_endian_32(control),
        .length = big_endian_32(length),
        .address = (u64)big_endian_32((u32)destination) << 32,
    };

    out32(FW_CFG_PORT_DMA_HIGH, 0);
    out32(FW_CFG_PORT_DMA_LOW, big_endian_32((u32)&request));
    while (request.control & ~big_endian_32(FW_CFG_DMA_ERROR))
        continue;
    return request.control == 0;
}

int fw_cfg_read_first(u16 key, void *destination, u32 length)
{
    return transfer((u32)key << FW_CFG_DMA_KEY_SHIFT | FW_CFG_DMA_SELECT | FW_CFG_DMA_READ, destination, length);
}

int fw_cfg_read_next(void *destination, u32 length)
{
    return transfer(FW_CFG_DMA_READ, destination, length);
}

int fw_cfg_read_at(u16 key, u32 offset, void *destination, u32 length)
{
    u32 control = (u32)key << FW_CFG_DMA_KEY_SHIFT | FW_CFG_DMA_SELECT | FW_CFG_DMA_SKIP;

    return transfer(control, 0, offset) && fw_cfg_read_next(destination, length);
}

static int is_same_name(const char *name, const char *entry_name)
{
    for (u32 i = 0; i < FW_CFG_NAME_BYTES; i++) {
        if (name[i] != entry_name[i])
            return 0;
        if (!name[i])
            return 1;
    }
    return 0;
}

static void match_entry(const struct fw_cfg_directory_entry *entry, const char *const names[],
                        struct fw_cfg_file files[], u32 count)
{
    for (u32 i = 0; i < count; i++)
        if (is_same_name(names[i], entry->name)) {
            files[i].size = big_endian_32(entry->size);
            files[i].key = big_endian_16(entry->key);
        }
}

void fw_cfg_find(const char *const names[], struct fw_cfg_file files[], u32 count)
{
    struct fw_cfg_directory_entry entry;
    u32 entries = 0;

    for (u32 i = 0; i < count; i++)
        files[i].size = files[i].key = 0;
    if (!fw_cfg_read_first(FW_CFG_KEY_DIRECTORY, &entries, sizeof entries))
        return;
    for (u32 left = big_endian_32(entries); left && fw_cfg_read_next(&entry, sizeof entry); left--)
        match_entry(&entry, names, files, count);
}
