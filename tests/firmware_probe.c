/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A multiboot kernel that prints, as hexadecimal numbers, all that the firmware handed over. See test_firmware.py. */
#include "../firmware/io.h"
#include "../firmware/multiboot.h"

#define PORT_COM1 0x3f8
#define PORT_DEBUG_EXIT 0xf4
#define EFLAGS_IF 0x200
#define CR0_PE 0x01
#define CR0_PG 0x80000000u

static void print(const char *text)
{
    for (; *text; text++)
        out8(PORT_COM1, (u8)*text);
}

static void print_number(u32 value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        out8(PORT_COM1, (u8)"0123456789abcdef"[value >> shift & 15]);
}

static void field(const char *name, u32 value)
{
    print(name);
    print(" ");
    print_number(value);
    print("\n");
}

static void text_field(const char *name, u32 address)
{
    print(name);
    print(" [");
    print((const char *)address);
    print("]\n");
}

static u32 checksum(u32 start, u32 end)
{
    u32 sum = 0;

    for (const u8 *byte = (const u8 *)start; byte != (const u8 *)end; byte++)
        sum = sum * 31 + *byte;
    return sum;
}

static void print_region(const struct multiboot_region *region)
{
    print("region ");
    print_number((u32)region->start);
    print(" ");
    print_number((u32)(region->start + region->length - 1));
    field(region->type == MULTIBOOT_AVAILABLE ? " available" : " reserved", region->size);
}

static void print_info(const struct multiboot_info *info)
{
    field("flags", info->flags);
    field("lower", info->mem_lower);
    field("upper", info->mem_upper);
    text_field("cmdline", info->cmdline);
    text_field("loader", info->boot_loader_name);
    for (u32 offset = 0; offset < info->mmap_length; offset += sizeof(struct multiboot_region))
        print_region((const struct multiboot_region *)(info->mmap_addr + offset));
    const struct multiboot_module *modules = (const struct multiboot_module *)info->mods_addr;
    for (u32 i = 0; i < info->mods_count; i++) {
        text_field("module", modules[i].string);
        field("start", modules[i].start);
        field("end", modules[i].end);
        field("sum", checksum(modules[i].start, modules[i].end));
    }
}

static void print_processor(void)
{
    u32 eflags, cr0;

    __asm__ volatile("pushfl; popl %0" : "=r"(eflags));
    __asm__ volatile("movl %%cr0, %0" : "=r"(cr0));
    field("interrupts", eflags & EFLAGS_IF);
    field("mode", cr0 & (CR0_PE | CR0_PG));
}

__attribute__((used)) static void probe(u32 magic, const struct multiboot_info *info)
{
    field("magic", magic);
    print_processor();
    print_info(info);
    out32(PORT_DEBUG_EXIT, 0x10);
    for (;;)
        __asm__ volatile("hlt");
}

/* The first bytes of the kernel; the stack lies below it. */
__asm__(".section .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start: movl $_start, %esp\n"
        "        pushl %ebx\n"
        "        pushl %eax\n"
        "        call probe\n");
