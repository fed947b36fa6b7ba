/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fuzz guest: carries out a script of cases (a multiboot module, see layout.py) and reports through port E9h what each
 * access did. Numbers such as ARENA come from layout.py as macros.
 *
 * The interpreter runs with paging on, in whatever format the case asks for: its first 12 MB are mapped to themselves by
 * tables of its own, to which the first entries of each root of a case lead.
 */
typedef unsigned char u8;
typedef unsigned int u32;

#define PRESENT_RW_AD 0x63 /* A and D are set beforehand, so that the guest's own accesses change nothing */
#define USER_PAGE 0x65
#define TABLE_ALL 0x67
#define MAX_WATCHED 128
#define DEBUG_PORT 0xE9

struct multiboot_info { u32 flags, memory[2], boot_device, command_line, module_count, modules; };

extern u32 request_va[2], request_value, request_stub, request_eflags, request_user;
extern volatile u32 in_access, answer_vector, answer_error, answer_value, answer_cr2[2], answer_ip;
extern const u32 stubs[2][7];
extern const u32 handlers[][3];
extern char stack_top, trap_stack_top, user_start, user_end;

void load_segments(const void *gdtr);
void access32(void);
void access64(void);
void invalidate64(void);
void boot(const struct multiboot_info *info);
void stray(void) __attribute__((noreturn));

struct __attribute__((packed)) table_register { unsigned short limit; u32 base, high; };

enum { TSS32 = 7, TSS64 = 8, LDT = 10, GDT_ENTRIES = 12 };

static u32 gdt[GDT_ENTRIES][2] __attribute__((aligned(16))) = {
    {0, 0},
    {0x0000ffff, 0x00cf9b00}, {0x0000ffff, 0x00cf9300}, /* ring 0: 32-bit code, data */
    {0x0000ffff, 0x00cffb00}, {0x0000ffff, 0x00cff300}, /* ring 3: 32-bit code, data */
    {0x0000ffff, 0x00af9b00}, {0x0000ffff, 0x00affb00}, /* 64-bit code: ring 0, ring 3 */
};
static u32 idt32[256][2] __attribute__((aligned(16)));
static u32 idt64[256][4] __attribute__((aligned(16)));
static u32 tss32[26], tss64[26];
static u32 watched[MAX_WATCHED], last[MAX_WATCHED][2], watched_count;
static u32 is_long;

static void put8(u32 value) { __asm__ volatile("outb %0, %1" : : "a"((u8)value), "Nd"((unsigned short)DEBUG_PORT)); }

static void put32(u32 value) {
    for (int byte = 0; byte < 4; byte++)
        put8(value >> 8 * byte);
}

static void __attribute__((noreturn)) leave(u32 value) {
    for (;;)
        __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"((unsigned short)EXIT_PORT));
}

/* An exception that no access asked for: the engine, or this guest, is wrong. */
void stray(void) {
    put8(REPORT_STRAY);
    put8(answer_vector);
    put32(answer_error);
    put32(answer_cr2[0]);
    put32(answer_ip);
    leave(1);
}

static volatile u32 *at(u32 physical) { return (volatile u32 *)physical; }

static void set_system_descriptor(u32 entry, u32 base, u32 base_high, u32 type, u32 limit) {
    gdt[entry][0] = base << 16 | limit;
    gdt[entry][1] = (base & 0xff000000) | 0x8000 | type << 8 | (base >> 16 & 0xff);
    if (entry != TSS32) {
        gdt[entry + 1][0] = base_high;
        gdt[entry + 1][1] = 0;
    }
}

static void load_task(void) {
    const struct table_register idtr = {is_long ? sizeof idt64 - 1 : sizeof idt32 - 1, is_long ? (u32)idt64 : (u32)idt32, 0};
    set_system_descriptor(TSS32, (u32)tss32, 0, 9, sizeof tss32 - 1); /* not busy again */
    set_system_descriptor(TSS64, (u32)tss64, 0, 9, sizeof tss64 - 1);
    __asm__ volatile("lidt %0" : : "m"(idtr));
    __asm__ volatile("ltr %w0" : : "r"(8 * (is_long ? TSS64 : TSS32)));
}

static void build_descriptors(void) {
    const struct table_register gdtr = {sizeof gdt - 1, (u32)gdt, 0};
    load_segments(&gdtr);
    for (u32 n = 0; handlers[n][0] != (u32)-1; n++) {
        u32 vector = handlers[n][0], low = handlers[n][1], high = handlers[n][2];
        idt32[vector][0] = 0x08 << 16 | (low & 0xffff);
        idt32[vector][1] = (low & 0xffff0000) | 0xee00;
        idt64[vector][0] = 0x28 << 16 | (high & 0xffff);
        idt64[vector][1] = (high & 0xffff0000) | 0xee00;
    }
    tss32[1] = (u32)&trap_stack_top;
    tss32[2] = 0x10;
    tss64[1] = (u32)&trap_stack_top; /* RSP0 */
    load_task();
}

static void build_own_tables(void) {
    for (u32 page = 0; page < KERNEL_BYTES / PAGE; page++) {
        u32 address = page * PAGE;
        int is_user = address >= (u32)&user_start && address < (u32)&user_end;
        u32 entry = address | (is_user ? USER_PAGE : PRESENT_RW_AD);
        at(TABLES32)[page] = entry;
        at(TABLES64)[2 * page] = entry;
        at(TABLES64)[2 * page + 1] = 0;
    }
    for (u32 index = 0; index < 6; index++) {
        at(DIRECTORY)[2 * index] = (TABLES64 + index * PAGE) | TABLE_ALL;
        at(DIRECTORY)[2 * index + 1] = 0;
    }
    at(POINTERS)[0] = DIRECTORY | TABLE_ALL;
    at(POINTERS)[1] = 0;
}

static u32 pattern(u32 physical) {
    return physical < DATA ? 0 : (physical - ARENA) / PAGE << 24 | (physical >> 2 & 0xff) << 16 | 0x80cd;
}

static void build_arena(void) {
    for (u32 physical = ARENA; physical < ARENA_END; physical += 4)
        *at(physical) = pattern(physical);
}

static void set_efer(u32 value) { __asm__ volatile("wrmsr" : : "c"(0xc0000080), "a"(value), "d"(0)); }
static void set_cr0(u32 value) { __asm__ volatile("movl %0, %%cr0" : : "r"(value) : "memory"); }
static void set_cr3(u32 value) { __asm__ volatile("movl %0, %%cr3" : : "r"(value) : "memory"); }
static void set_cr4(u32 value) { __asm__ volatile("movl %0, %%cr4" : : "r"(value) : "memory"); }

static u32 get_cr0(void) {
    u32 value;
    __asm__ volatile("movl %%cr0, %0" : "=r"(value));
    return value;
}

/* Any format to any other, by way of no paging; from compatibility mode that leaves long mode. */
static void set_mode(u32 to_long, u32 cr0, u32 cr3, u32 cr4, u32 efer) {
    set_cr0(get_cr0() & 0x7fffffff);
    set_efer(efer);
    set_cr4(cr4);
    set_cr3(cr3);
    set_cr0(cr0);
    is_long = to_long;
    load_task();
}

static void poke64_locked(u32 physical, u32 low, u32 high) {
    volatile u32 *word = at(physical);
    u32 old_low = word[0], old_high = word[1];
    __asm__ volatile("lock cmpxchg8b %0" : "+m"(*(volatile unsigned long long *)word), "+a"(old_low), "+d"(old_high) : "b"(low), "c"(high));
}

static void poke64_string(u32 physical, u32 low, u32 high) {
    u32 source[2] = {low, high}, count = 2;
    u32 *from = source;
    __asm__ volatile("rep movsl" : "+S"(from), "+D"(physical), "+c"(count) : : "memory");
}

static void report_changes(void) {
    u32 count = 0;
    for (u32 n = 0; n < watched_count; n++)
        count += at(watched[n])[0] != last[n][0] || at(watched[n])[1] != last[n][1];
    put8(count);
    for (u32 n = 0; n < watched_count; n++) {
        u32 low = at(watched[n])[0], high = at(watched[n])[1];
        if (low == last[n][0] && high == last[n][1])
            continue;
        last[n][0] = low;
        last[n][1] = high;
        put8(n);
        put32(low);
        put32(high);
    }
}

static void access(u32 what, u32 low, u32 high, u32 value) {
    u32 kind = what & 0xff;
    request_va[0] = low;
    request_va[1] = high;
    request_value = value;
    request_user = (what & USER) != 0;
    request_eflags = 2 | (what & AC ? 1 << 18 : 0);
    request_stub = stubs[request_user][kind];
    if (kind == VERIFY) {
        set_system_descriptor(LDT, low, high, 2, 0xffff);
        __asm__ volatile("lldt %w0" : : "r"(8 * LDT));
    }
    in_access = 1;
    if (is_long)
        access64();
    else
        access32();
    in_access = 0;
    put8(REPORT_ACCESS);
    put8(answer_vector);
    put8(answer_error);
    put8(answer_error >> 8);
    put32(answer_cr2[0]);
    put32(answer_cr2[1]);
    put32(answer_value);
    report_changes();
}

static const u32 *begin_case(const u32 *script) {
    put8(REPORT_CASE);
    put32(*script++);
    watched_count = *script++;
    for (u32 n = 0; n < watched_count; n++) {
        watched[n] = *script++;
        last[n][0] = at(watched[n])[0];
        last[n][1] = at(watched[n])[1];
    }
    return script;
}

/* Puts the arena back; whatever changed without being watched is reported. */
static void end_case(void) {
    u32 disturbed = 0;
    set_mode(0, get_cr0() & 0x7fffffff, 0, 0, 0);
    for (u32 n = 0; n < watched_count; n++) {
        at(watched[n])[0] = pattern(watched[n]);
        at(watched[n])[1] = pattern(watched[n] + 4);
    }
    for (u32 physical = ARENA; physical < ARENA_END && !disturbed; physical += 4)
        if (*at(physical) != pattern(physical))
            disturbed = physical;
    put8(REPORT_END);
    put32(disturbed);
    if (disturbed)
        build_arena();
}

static void invalidate(u32 low, u32 high) {
    request_va[0] = low;
    request_va[1] = high;
    if (is_long)
        invalidate64();
    else
        __asm__ volatile("invlpg (%0)" : : "r"(low) : "memory");
}

/* Carries out one operation; returns the next, 0 at the end. */
static const u32 *step(const u32 *script) {
    u32 operation = *script++;
    const u32 *word = script;
    switch (operation) {
    case CASE: return begin_case(script);
    case POKE32: *at(word[0]) = word[1]; return script + 2;
    case POKE64: at(word[0])[0] = word[1]; at(word[0])[1] = word[2]; return script + 3;
    case POKE64_LOCKED: poke64_locked(word[0], word[1], word[2]); return script + 3;
    case POKE64_STRING: poke64_string(word[0], word[1], word[2]); return script + 3;
    case MODE: set_mode(word[0], word[1], word[2], word[3], word[4]); return script + 5;
    case CR0: set_cr0(word[0]); return script + 1;
    case CR3: set_cr3(word[0]); return script + 1;
    case CR4: set_cr4(word[0]); return script + 1;
    case EFER: set_efer(word[0]); return script + 1;
    case INVLPG: invalidate(word[0], word[1]); return script + 2;
    case ACCESS: access(word[0], word[1], word[2], word[3]); return script + 4;
    case END: end_case(); return script;
    default: return 0;
    }
}

void boot(const struct multiboot_info *info) {
    const u32 *script = *(const u32 **)info->modules;
    build_descriptors();
    build_own_tables();
    build_arena();
    while (script)
        script = step(script);
    put8(REPORT_DONE);
    leave(0);
}
