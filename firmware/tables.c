/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the machine consists of, for operating systems: ACPI tables (ACPI Specification 1.0b, chapter 5) and the
 * configuration table of Intel's MultiProcessor Specification 1.4, chapter 4. All are constant; kernels find them by the
 * signatures of the two pointers in E0000-FFFFF. The checksums are zero here: build.py fills them in.
 *
 * There is no ACPI hardware (no power-management registers, no SMI, no FACS), so the FADT names none: kernels need it, and the
 * empty DSDT, to accept the rest.
 */
#include "io.h"
#include "platform.h"

#define PACKED __attribute__((packed))

/* ---- ACPI ---- */

struct acpi_header {
    char signature[4];
    u32 length; /* bytes of the table, this header included */
    u8 revision;
    u8 checksum; /* makes all bytes of the table add up to 0 */
    char oem_id[6];
    char oem_table_id[8];
    u32 oem_revision;
    char creator_id[4];
    u32 creator_revision;
} PACKED;

#define ACPI_HEADER(name, table_revision, table)                                                                       \
    {                                                                                                                  \
        .signature = name, .length = sizeof(table), .revision = (table_revision), .oem_id = TABLE_OEM_ID,              \
        .oem_table_id = TABLE_OEM_TABLE_ID, .oem_revision = 1, .creator_id = "EMU ", .creator_revision = 1,            \
    }

#define MADT_PCAT_COMPAT 1u /* there are two 8259 as well */
#define MADT_LOCAL_APIC 0
#define MADT_IO_APIC 1
#define MADT_OVERRIDE 2
#define MADT_LOCAL_NMI 4
#define MADT_ENABLED 1u
#define MADT_ALL_PROCESSORS 0xff
#define BUS_ISA 0
#define AS_THE_BUS_HAS_IT 0 /* polarity and trigger mode */

struct madt_local_apic {
    u8 type, length;
    u8 processor_id;
    u8 apic_id;
    u32 flags;
} PACKED;

struct madt_io_apic {
    u8 type, length;
    u8 id;
    u8 reserved;
    u32 address;
    u32 gsi_base; /* the interrupt number of its input 0 */
} PACKED;

struct madt_override {
    u8 type, length;
    u8 bus;
    u8 source; /* IRQ of the bus */
    u32 gsi;
    u16 flags;
} PACKED;

struct madt_local_nmi {
    u8 type, length;
    u8 processor_id;
    u16 flags;
    u8 lint;
} PACKED;

struct madt {
    struct acpi_header header;
    u32 local_apic_address;
    u32 flags;
    struct madt_local_apic local_apic;
    struct madt_io_apic io_apic;
    struct madt_override timer;
    struct madt_local_nmi nmi;
} PACKED;

static const struct madt madt = {
    .header = ACPI_HEADER("APIC", 1, struct madt),
    .local_apic_address = LOCAL_APIC_ADDRESS,
    .flags = MADT_PCAT_COMPAT,
    .local_apic = {MADT_LOCAL_APIC, sizeof(struct madt_local_apic), LOCAL_APIC_ID, LOCAL_APIC_ID, MADT_ENABLED},
    .io_apic = {MADT_IO_APIC, sizeof(struct madt_io_apic), IO_APIC_ID, 0, IO_APIC_ADDRESS, IO_APIC_GSI_BASE},
    .timer = {MADT_OVERRIDE, sizeof(struct madt_override), BUS_ISA, ISA_IRQ_TIMER, TIMER_GSI, AS_THE_BUS_HAS_IT},
    .nmi = {MADT_LOCAL_NMI, sizeof(struct madt_local_nmi), MADT_ALL_PROCESSORS, AS_THE_BUS_HAS_IT, LINT_NMI},
};

static const struct acpi_header dsdt = ACPI_HEADER("DSDT", 1, struct acpi_header);

#define FADT_WBINVD (1u << 0)
#define FADT_PROC_C1 (1u << 2) /* HLT works */
#define FADT_NO_POWER_BUTTON (1u << 4)
#define FADT_NO_SLEEP_BUTTON (1u << 5)
#define FADT_LATENCY_NO_C2 101  /* microseconds; more than 100 says that there is no C2 */
#define FADT_LATENCY_NO_C3 1001 /* likewise, 1000 */

struct fadt {
    struct acpi_header header;
    u32 facs;
    const struct acpi_header *dsdt;
    u8 interrupt_model; /* 1: APICs and two 8259 */
    u8 reserved1;
    u16 sci_interrupt;
    u32 smi_command_port;
    u8 acpi_enable, acpi_disable, s4bios_request, reserved2;
    u32 power_management_blocks[8]; /* ports; 0: absent */
    u8 block_lengths[8];
    u16 c2_latency, c3_latency;
    u16 flush_size, flush_stride;
    u8 duty_offset, duty_width;
    u8 day_alarm, month_alarm, century; /* CMOS registers */
    u8 reserved3[3];
    u32 flags;
} PACKED;

_Static_assert(sizeof(struct fadt) == 116, "layout fixed by the specification");

static const struct fadt fadt = {
    .header = ACPI_HEADER("FACP", 1, struct fadt),
    .dsdt = &dsdt,
    .interrupt_model = 1,
    .sci_interrupt = ISA_IRQ_SCI,
    .c2_latency = FADT_LATENCY_NO_C2,
    .c3_latency = FADT_LATENCY_NO_C3,
    .century = 0x32,
    .flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON,
};

struct rsdt {
    struct acpi_header header;
    const void *tables[2];
} PACKED;

static const struct rsdt rsdt = {ACPI_HEADER("RSDT", 1, struct rsdt), {&fadt, &madt}};

struct rsdp {
    char signature[8];
    u8 checksum;
    char oem_id[6];
    u8 revision; /* 0: ACPI 1.0 */
    const struct rsdt *rsdt;
} PACKED;

__attribute__((used, aligned(16))) static const struct rsdp rsdp = {
    .signature = "RSD PTR ", .oem_id = TABLE_OEM_ID, .revision = 0, .rsdt = &rsdt};

/* ---- MultiProcessor Specification ---- */

#define MP_PROCESSOR 0
#define MP_BUS 1
#define MP_IO_APIC 2
#define MP_IO_INTERRUPT 3
#define MP_LOCAL_INTERRUPT 4
#define MP_PROCESSOR_ENABLED 1
#define MP_PROCESSOR_BOOT 2
#define MP_IO_APIC_ENABLED 1
#define MP_ISA_BUS 0
#define MP_ALL_LOCAL_APICS 0xff
#define MP_INT 0
#define MP_NMI 1
#define MP_EXTINT 3

struct mp_processor {
    u8 type;
    u8 apic_id, apic_version;
    u8 flags;
    u32 signature, features; /* CPUID leaf 1: EAX, EDX */
    u32 reserved[2];
} PACKED;

struct mp_bus {
    u8 type;
    u8 id;
    char name[6];
} PACKED;

struct mp_io_apic {
    u8 type;
    u8 id, version;
    u8 flags;
    u32 address;
} PACKED;

/* The same for inputs of I/O APICs and pins of local APICs. */
struct mp_interrupt {
    u8 type;
    u8 kind;
    u16 flags; /* polarity and trigger mode */
    u8 bus, irq;
    u8 apic_id, input;
} PACKED;

#define MP_ISA_INTERRUPTS (ISA_IRQS - 1) /* the cascade is none */

struct mp_configuration {
    char signature[4];
    u16 length; /* bytes */
    u8 revision; /* 4: version 1.4 */
    u8 checksum;
    char oem_id[8];
    char product_id[12];
    u32 oem_table;
    u16 oem_table_bytes;
    u16 entries;
    u32 local_apic_address;
    u16 extended_bytes;
    u8 extended_checksum;
    u8 reserved;
    struct mp_processor processor;
    struct mp_bus bus;
    struct mp_io_apic io_apic;
    struct mp_interrupt isa[MP_ISA_INTERRUPTS];
    struct mp_interrupt local[2];
} PACKED;

#define ISA_INTERRUPT(irq, input) {MP_IO_INTERRUPT, MP_INT, AS_THE_BUS_HAS_IT, MP_ISA_BUS, irq, IO_APIC_ID, input}

static const struct mp_configuration mp_configuration = {
    .signature = "PCMP",
    .length = sizeof(struct mp_configuration),
    .revision = 4,
    .oem_id = MP_OEM_ID,
    .product_id = MP_PRODUCT_ID,
    .entries = 3 + MP_ISA_INTERRUPTS + 2,
    .local_apic_address = LOCAL_APIC_ADDRESS,
    .processor = {.type = MP_PROCESSOR,
                  .apic_id = LOCAL_APIC_ID,
                  .apic_version = LOCAL_APIC_VERSION,
                  .flags = MP_PROCESSOR_ENABLED | MP_PROCESSOR_BOOT,
                  .signature = CPU_SIGNATURE,
                  .features = CPU_FEATURES},
    .bus = {MP_BUS, MP_ISA_BUS, "ISA   "},
    .io_apic = {MP_IO_APIC, IO_APIC_ID, IO_APIC_VERSION, MP_IO_APIC_ENABLED, IO_APIC_ADDRESS},
    .isa = {ISA_INTERRUPT(ISA_IRQ_TIMER, TIMER_GSI), ISA_INTERRUPT(1, 1), ISA_INTERRUPT(3, 3), ISA_INTERRUPT(4, 4),
            ISA_INTERRUPT(5, 5), ISA_INTERRUPT(6, 6), ISA_INTERRUPT(7, 7), ISA_INTERRUPT(8, 8), ISA_INTERRUPT(9, 9),
            ISA_INTERRUPT(10, 10), ISA_INTERRUPT(11, 11), ISA_INTERRUPT(12, 12), ISA_INTERRUPT(13, 13),
            ISA_INTERRUPT(14, 14), ISA_INTERRUPT(15, 15)},
    .local = {{MP_LOCAL_INTERRUPT, MP_EXTINT, AS_THE_BUS_HAS_IT, MP_ISA_BUS, 0, LOCAL_APIC_ID, LINT_EXTINT},
              {MP_LOCAL_INTERRUPT, MP_NMI, AS_THE_BUS_HAS_IT, MP_ISA_BUS, 0, MP_ALL_LOCAL_APICS, LINT_NMI}},
};

struct mp_pointer {
    char signature[4];
    const struct mp_configuration *configuration;
    u8 length; /* in units of 16 bytes */
    u8 revision;
    u8 checksum;
    u8 features[5]; /* the first 0: the table describes the machine; in the second no IMCR */
} PACKED;

_Static_assert(sizeof(struct mp_pointer) == 16, "layout fixed by the specification");

__attribute__((used, aligned(16))) static const struct mp_pointer mp_pointer = {
    .signature = "_MP_", .configuration = &mp_configuration, .length = 1, .revision = 4};
