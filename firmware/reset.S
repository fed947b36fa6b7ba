/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From reset to 32-bit C.
 *
 * The processor starts in real mode at F000:FFF0 with the hidden base of CS at FFFF0000, so the first instruction comes
 * from the copy of the ROM below 4 GiB. The far jump loads CS anew and goes on in the copy below 1 MiB.
 */
#include "layout.h"

#define PORT_SYSTEM_CONTROL_A 0x92
#define FAST_RESET 0x01 /* writing 1 resets the machine */
#define FAST_A20 0x02
#define PORT_RESET 0xcf9
#define RESET_KIND 0x02 /* of the whole machine */
#define RESET_NOW 0x04

#define CR0_PE 0x01
#define MODEL_OFFSET 0xfffe
#define BIOS_MODEL 0xfc /* an AT */

        .section .reset, "ax"
        .code16
        .globl reset_vector
reset_vector:
        ljmp    $(ROM_BASE >> 4), $real_mode_offset
        .org    MODEL_OFFSET - RESET_OFFSET, 0
        .byte   BIOS_MODEL
        .org    ROM_BYTES - RESET_OFFSET, 0 /* the section, and with it the image, ends with the address space */

        .section .text.start, "ax"
        .code16
        .globl real_mode_start
real_mode_start:
        cli
        cld

        /*
         * A jump to FFFF:0 or F000:FFF0 comes here too, and is a reset as on a PC: the machine has been here since its last one, and
         * left the kind of the next in the chipset's register.
         */
        movw    $PORT_RESET, %dx
        inb     %dx, %al
        testb   $RESET_KIND, %al
        movb    $RESET_KIND, %al
        jz      first_time
        orb     $RESET_NOW, %al
        outb    %al, %dx
        hlt
first_time:
        outb    %al, %dx

        inb     $PORT_SYSTEM_CONTROL_A, %al
        orb     $FAST_A20, %al
        andb    $(~FAST_RESET & 0xff), %al
        outb    %al, $PORT_SYSTEM_CONTROL_A

        movw    %cs, %ax
        movw    %ax, %ds
        lgdtl   gdt_pointer_offset
        movl    %cr0, %eax
        orl     $CR0_PE, %eax
        movl    %eax, %cr0
        ljmpl   $SELECTOR_CODE, $protected_mode_start

        .code32
protected_mode_start:
        movl    $SELECTOR_DATA, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %gs
        movw    %ax, %ss
        movl    $STACK_TOP, %esp
        xorl    %ebp, %ebp
        call    firmware_main
        /* firmware_main does not return */

/* start_kernel(entry, magic, info): the machine state is the one that the multiboot specification, 3.2, asks for. */
        .globl start_kernel
start_kernel:
        movl    4(%esp), %ecx
        movl    8(%esp), %eax
        movl    12(%esp), %ebx
        jmp     *%ecx

/* stop(): halts for ever; interrupts are off, so only a reset ends it. */
        .globl stop
stop:
        cli
        hlt
        jmp     stop

/*
 * Flat segments of 4 GiB, and those of the way back to real mode. The accessed bit of each is set beforehand: the processor would otherwise write it, and this
 * table is in ROM.
 */
        .section .rodata.gdt, "a"
        .balign 8
gdt:
        .quad   0
        .quad   0x00cf9b000000ffff /* SELECTOR_CODE: ring 0, execute and read */
        .quad   0x00cf93000000ffff /* SELECTOR_DATA: ring 0, read and write */
        .quad   0x00009b0f0000ffff /* SELECTOR_CODE16 */
        .quad   0x000093000000ffff /* SELECTOR_DATA16 */
gdt_end:

        .globl gdt_pointer
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
