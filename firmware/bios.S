/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The real-mode side of the BIOS: entries of interrupts and services, and the way to protected mode and back.
 *
 * A service saves the caller's registers on the caller's stack (struct registers of bios.h), turns protection on, and calls C
 * on a stack of the firmware's own. Interrupts are off all the while. Data segments keep their limits of 4 GiB on the way back, so
 * that a caller in "unreal" mode stays in it; its GDTR is kept too.
 */
#include "layout.h"

#define CR0_PE 0x01
#define PORT_PIC1_COMMAND 0x20
#define PORT_PIC2_COMMAND 0xa0
#define PIC_READ_IN_SERVICE 0x0b
#define PIC_END_OF_INTERRUPT 0x20
#define PORT_CMOS_INDEX 0x70
#define PORT_CMOS_DATA 0x71
#define CMOS_REGISTER_C 0x0c
#define BIOS_DATA_SEGMENT 0x40
#define TICKS_OFFSET 0x6c
#define MIDNIGHT_OFFSET 0x70
#define TICKS_PER_DAY 0x1800b0
#define USER_TIMER_VECTOR 0x1c
#define FRAME_WAITS 36 /* struct registers, waits */
#define GDTR_BYTES 8   /* six, kept even */

        .section .text.bios, "ax"
        .code16

.macro SERVICE name, vector
        .globl  \name
\name:  pushw   $\vector
        jmp     service
.endm

        SERVICE service_00, 0x00
        SERVICE service_06, 0x06
fault_0c:
        pushw   $0x0c
        jmp     service
fault_0d:
        pushw   $0x0d
        jmp     service
        SERVICE service_10, 0x10
        SERVICE service_11, 0x11
        SERVICE service_12, 0x12
        SERVICE service_13, 0x13
        SERVICE service_14, 0x14
        SERVICE service_15, 0x15
        SERVICE service_16, 0x16
        SERVICE service_17, 0x17
        SERVICE service_18, 0x18
        SERVICE service_19, 0x19
        SERVICE service_1a, 0x1a

service:
        cli
        cld
        pushw   $0 /* waits */
        pushw   %ds
        pushw   %es
        pushal
service_again:
        movl    %esp, %ebx
        movzwl  %bx, %ebx
        xorl    %esi, %esi
        movw    %ss, %si
        subw    $GDTR_BYTES, %sp
        movw    %sp, %bp
        sgdtl   (%bp)
        movl    %esi, %edi
        shll    $4, %edi
        addl    %ebx, %edi /* EDI: address of the frame; SI:BX the same for real mode */

        lgdtl   %cs:gdt_pointer_offset
        movl    %cr0, %ecx
        orl     $CR0_PE, %ecx
        movl    %ecx, %cr0
        ljmpl   $SELECTOR_CODE, $service_protected
        .code32
service_protected:
        movl    $SELECTOR_DATA, %ecx
        movw    %cx, %ds
        movw    %cx, %es
        movw    %cx, %ss
        movl    $STACK_TOP, %esp
        pushl   %edi
        call    bios_service
        cld
        ljmpl   $SELECTOR_CODE16, $service_leave_offset
        .code16
        .globl service_leave, service_real
service_leave:
        movw    $SELECTOR_DATA16, %cx
        movw    %cx, %ss
        movl    %cr0, %ecx
        andl    $(~CR0_PE), %ecx
        movl    %ecx, %cr0
        ljmpw   $ROM_SEGMENT, $service_real_offset
service_real:
        movw    %si, %ss
        movl    %ebx, %esp
        movw    %bx, %bp
        lgdtl   -GDTR_BYTES(%bp)
        xorw    %cx, %cx
        movw    %cx, %ds
        movw    %cx, %es
        testl   %eax, %eax
        jnz     service_wait
        popal
        popw    %es
        popw    %ds
        addw    $4, %sp /* waits, service */
        iretw
service_wait:
        incw    FRAME_WAITS(%bp)
        sti
        hlt
        cli
        jmp     service_again

/* enter_boot_sector(drive): to 0000:7C00 in real mode, all segments 0, the drive in DL. */
        .code32
        .globl enter_boot_sector, enter_real, enter_far
enter_boot_sector:
        movl    4(%esp), %edx
        ljmpl   $SELECTOR_CODE16, $enter_real_offset
        .code16
enter_real:
        movw    $SELECTOR_DATA16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %gs
        movw    %ax, %ss
        movl    %cr0, %eax
        andl    $(~CR0_PE), %eax
        movl    %eax, %cr0
        ljmpw   $ROM_SEGMENT, $enter_far_offset
enter_far:
        xorl    %eax, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %gs
        movw    %ax, %ss
        movl    $BOOT_SECTOR, %esp
        xorl    %ebx, %ebx
        xorl    %ecx, %ecx
        xorl    %esi, %esi
        xorl    %edi, %edi
        xorl    %ebp, %ebp
        sti
        ljmpw   $0, $BOOT_SECTOR

        .globl interrupt_ignored
interrupt_ignored:
        iretw

/* IRQ 0: counts, and calls INT 1Ch for the user. */
        .globl interrupt_timer
interrupt_timer:
        pushl   %eax
        pushw   %ds
        movw    $BIOS_DATA_SEGMENT, %ax
        movw    %ax, %ds
        movl    TICKS_OFFSET, %eax
        incl    %eax
        cmpl    $TICKS_PER_DAY, %eax
        jb      1f
        xorl    %eax, %eax
        incb    MIDNIGHT_OFFSET
1:      movl    %eax, TICKS_OFFSET
        pushw   %dx
        int     $USER_TIMER_VECTOR
        popw    %dx
        cli
        movb    $PIC_END_OF_INTERRUPT, %al
        outb    %al, $PORT_PIC1_COMMAND
        popw    %ds
        popl    %eax
        iretw

/* IRQs of the first 8259 that nobody has taken. Without one in service it is spurious, or not an IRQ at all. */
.macro MASTER name, otherwise
        .globl  \name
\name:  pushw   %ax
        movb    $PIC_READ_IN_SERVICE, %al
        outb    %al, $PORT_PIC1_COMMAND
        inb     $PORT_PIC1_COMMAND, %al
        testb   %al, %al
        jnz     end_master
        popw    %ax
        jmp     \otherwise
.endm
        MASTER  interrupt_master, interrupt_ignored
        MASTER  interrupt_0c, fault_0c
        MASTER  interrupt_0d, fault_0d

/* IRQ 8: the real-time clock holds its line until register C is read. */
        .globl interrupt_clock, interrupt_slave
interrupt_clock:
        pushw   %ax
        movb    $CMOS_REGISTER_C, %al
        outb    %al, $PORT_CMOS_INDEX
        inb     $PORT_CMOS_DATA, %al
        jmp     end_slave
interrupt_slave:
        pushw   %ax
        movb    $PIC_READ_IN_SERVICE, %al
        outb    %al, $PORT_PIC2_COMMAND
        inb     $PORT_PIC2_COMMAND, %al
        testb   %al, %al
        jz      end_master /* spurious: only the first 8259 has one in service */
end_slave:
        movb    $PIC_END_OF_INTERRUPT, %al
        outb    %al, $PORT_PIC2_COMMAND
end_master:
        movb    $PIC_END_OF_INTERRUPT, %al
        outb    %al, $PORT_PIC1_COMMAND
        popw    %ax
        iretw
