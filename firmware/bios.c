/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting a boot sector, and the table of services. */
#include "bios.h"
#include "console.h"

#define PORT_PIC1_COMMAND 0x20
#define PORT_PIC1_MASK 0x21
#define PORT_PIC2_COMMAND 0xa0
#define PORT_PIC2_MASK 0xa1
#define PIC_INITIALIZE 0x11
#define PIC_8086 0x01
#define MASK_ALL_BUT_TIMER_CASCADE_COM1 0xea
#define VECTOR_IRQ0 0x08
#define VECTOR_IRQ8 0x70
#define VECTOR_USER_TIMER 0x1c
#define VECTOR_FLOPPY_PARAMETERS 0x1e

#define BOOT_SIGNATURE 0xaa55

typedef void entry_point(void);
entry_point interrupt_ignored, interrupt_timer, interrupt_master, interrupt_0c, interrupt_0d, interrupt_clock, interrupt_slave;
entry_point service_00, service_06, service_10, service_11, service_12, service_13, service_14, service_15, service_16,
    service_17, service_18, service_19, service_1a;
_Noreturn void enter_boot_sector(u32 drive);

static const u8 floppy_parameters[] = {0xaf, 0x02, 0x25, 0x02, 18, 0x1b, 0xff, 0x6c, 0xf6, 0x0f, 0x08};

static void set_vector(u32 vector, const void *target)
{
    u32 *table = at_address(0);

    table[vector] = (u32)ROM_SEGMENT << 16 | (u16)(u32)target;
}

static void set_vectors(void)
{
    static entry_point *const services[] = {service_10, service_11, service_12, service_13, service_14, service_15,
                                            service_16, service_17, service_18, service_19, service_1a};
    static const u8 no_tables[] = {0x1d, 0x1f, 0x41, 0x43, 0x46}; /* these vectors point to data */

    for (u32 vector = 0; vector < 256; vector++)
        set_vector(vector, (const void *)interrupt_ignored);
    for (u32 irq = 0; irq < 8; irq++) {
        set_vector(VECTOR_IRQ0 + irq, (const void *)interrupt_master);
        set_vector(VECTOR_IRQ8 + irq, (const void *)interrupt_slave);
    }
    for (u32 i = 0; i < sizeof services / sizeof services[0]; i++)
        set_vector(0x10 + i, (const void *)services[i]);
    for (u32 i = 0; i < sizeof no_tables; i++)
        *(u32 *)at_address(4 * no_tables[i]) = 0;
    set_vector(0x00, (const void *)service_00);
    set_vector(0x06, (const void *)service_06);
    set_vector(VECTOR_IRQ0, (const void *)interrupt_timer);
    set_vector(0x0c, (const void *)interrupt_0c);
    set_vector(0x0d, (const void *)interrupt_0d);
    set_vector(VECTOR_IRQ8, (const void *)interrupt_clock);
    set_vector(VECTOR_FLOPPY_PARAMETERS, floppy_parameters);
}

static void start_interrupt_controllers(void)
{
    out8(PORT_PIC1_COMMAND, PIC_INITIALIZE);
    out8(PORT_PIC1_MASK, VECTOR_IRQ0);
    out8(PORT_PIC1_MASK, 1 << 2); /* the second one is at input 2 */
    out8(PORT_PIC1_MASK, PIC_8086);
    out8(PORT_PIC2_COMMAND, PIC_INITIALIZE);
    out8(PORT_PIC2_MASK, VECTOR_IRQ8);
    out8(PORT_PIC2_MASK, 2);
    out8(PORT_PIC2_MASK, PIC_8086);
    out8(PORT_PIC1_MASK, MASK_ALL_BUT_TIMER_CASCADE_COM1);
    out8(PORT_PIC2_MASK, 0xff);
}

_Noreturn void boot_first_sector(void)
{
    const u16 *sector = at_address(BOOT_SECTOR);

    if (!disk_read(0, 1, at_address(BOOT_SECTOR)))
        fail("the boot disk cannot be read");
    if (sector[255] != BOOT_SIGNATURE)
        fail("the boot disk's first sector does not end with 55 AA: it is not bootable");
    enter_boot_sector(extended_data()->drive);
}

_Noreturn void boot_from_disk(struct fw_cfg_file image)
{
    disk_attach(image);
    set_vectors();
    bios_data_fill();
    video_clear();
    time_start();
    serial_start();
    start_interrupt_controllers();
    boot_first_sector();
}

static enum outcome equipment_service(struct registers *regs)
{
    regs->a.x = bios_data()->equipment;
    return SERVICE_DONE;
}

static enum outcome memory_size_service(struct registers *regs)
{
    regs->a.x = bios_data()->memory_kib;
    return SERVICE_DONE;
}

static _Noreturn enum outcome no_other_disk(struct registers *regs)
{
    (void)regs;
    fail("the boot sector gave up (INT 18h), and there is no other disk");
}

static _Noreturn enum outcome boot_again(struct registers *regs)
{
    (void)regs;
    boot_first_sector();
}

/* An exception that the program has no handler for: to return would raise it again for ever. */
static _Noreturn void end_by_exception(const struct registers *regs)
{
    print("emu firmware: exception ");
    print_hex(regs->service, 2);
    print(" at ");
    print_hex(regs->cs, 4);
    print(":");
    print_hex(regs->ip, 4);
    print(" has no handler\n");
    stop();
}

__attribute__((used)) enum outcome bios_service(struct registers *regs)
{
    static enum outcome (*const services[])(struct registers *) = {
        video_service,    equipment_service, memory_size_service, disk_service, serial_service, system_service,
        keyboard_service, printer_service,   no_other_disk,       boot_again,   time_service,
    };

    if (regs->service < 0x10)
        end_by_exception(regs);
    return services[regs->service - 0x10](regs);
}
