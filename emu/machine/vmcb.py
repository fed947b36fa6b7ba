"""The virtual machine control block of AMD-V: offsets and bits (AMD64 APM vol. 2, appendix B).

The VMM enters a guest once with VMRUN; after that the guest's state lives in the engine's registers (see
`emu.machine.engine`), so only the fields that VMRUN reads and the two that exits write are named here.
"""

from __future__ import annotations

# Control area.
CR_READ_INTERCEPTS = 0x00  # u16, one bit per control register
CR_WRITE_INTERCEPTS = 0x02
DR_READ_INTERCEPTS = 0x04
DR_WRITE_INTERCEPTS = 0x06
EXCEPTION_INTERCEPTS = 0x08  # u32, one bit per vector
INTERCEPTS = 0x0C  # u64: the word at 0x0C and the one at 0x10
GUEST_ASID = 0x58
EXIT_INFO_1 = 0x78
EXIT_INFO_2 = 0x80  # the engine writes the address of #PF and of nested faults here, and nothing else
NESTED_CONTROL = 0x90  # bit 0: nested paging
EVENT_INJECTION = 0xA8
NESTED_CR3 = 0xB0

# State save area: segments are {u16 selector, u16 attributes, u32 limit, u64 base}.
SAVE = 0x400
ES, CS, SS, DS, FS, GS, GDTR, LDTR, IDTR, TR = (SAVE + 0x10 * n for n in range(10))
CPL = SAVE + 0xCB
EFER = SAVE + 0xD0
CR4 = SAVE + 0x148
CR3 = SAVE + 0x150
CR0 = SAVE + 0x158
DR7 = SAVE + 0x160
DR6 = SAVE + 0x168
RFLAGS = SAVE + 0x170
RIP = SAVE + 0x178
RSP = SAVE + 0x1D8
RAX = SAVE + 0x1F8
CR2 = SAVE + 0x240

# Bits of INTERCEPTS.
INTERCEPT_IDTR_WRITE = 1 << 10
INTERCEPT_GDTR_WRITE = 1 << 11
INTERCEPT_LDTR_WRITE = 1 << 12
INTERCEPT_TR_WRITE = 1 << 13
INTERCEPT_RDPMC = 1 << 15
INTERCEPT_RDTSC = 1 << 14
INTERCEPT_CPUID = 1 << 18
INTERCEPT_RSM = 1 << 19
INTERCEPT_IRET = 1 << 20
INTERCEPT_HLT = 1 << 24
INTERCEPT_INVLPG = 1 << 25
INTERCEPT_INVLPGA = 1 << 26
INTERCEPT_MSR = 1 << 28
INTERCEPT_SHUTDOWN = 1 << 31
INTERCEPT_VMRUN = 1 << 32
INTERCEPT_VMMCALL = 1 << 33
INTERCEPT_VMLOAD = 1 << 34
INTERCEPT_VMSAVE = 1 << 35
INTERCEPT_STGI = 1 << 36
INTERCEPT_CLGI = 1 << 37
INTERCEPT_SKINIT = 1 << 38
INTERCEPT_RDTSCP = 1 << 39
INTERCEPT_MONITOR = 1 << 42
INTERCEPT_MWAIT = 1 << 43

# Exit codes as UC_HOOK_INTR reports them: 0x100 + the manual's number.
EXIT_BASE = 0x100
EXIT_CR_READ = EXIT_BASE + 0x00  # + register
EXIT_CR_WRITE = EXIT_BASE + 0x10
EXIT_DR_READ = EXIT_BASE + 0x20
EXIT_DR_WRITE = EXIT_BASE + 0x30
EXIT_EXCEPTION = EXIT_BASE + 0x40  # + vector
EXIT_IDTR_WRITE = EXIT_BASE + 0x6A
EXIT_GDTR_WRITE = EXIT_BASE + 0x6B
EXIT_LDTR_WRITE = EXIT_BASE + 0x6C
EXIT_TR_WRITE = EXIT_BASE + 0x6D
EXIT_RDTSC = EXIT_BASE + 0x6E
EXIT_RDPMC = EXIT_BASE + 0x6F
EXIT_CPUID = EXIT_BASE + 0x72
EXIT_RSM = EXIT_BASE + 0x73
EXIT_IRET = EXIT_BASE + 0x74
EXIT_HLT = EXIT_BASE + 0x78
EXIT_INVLPG = EXIT_BASE + 0x79
EXIT_INVLPGA = EXIT_BASE + 0x7A
EXIT_MSR = EXIT_BASE + 0x7C
EXIT_SHUTDOWN = EXIT_BASE + 0x7F
EXIT_VMRUN = EXIT_BASE + 0x80
EXIT_SVM_LAST = EXIT_BASE + 0x87  # VMRUN .. RDTSCP
EXIT_MONITOR = EXIT_BASE + 0x8A
EXIT_MWAIT = EXIT_BASE + 0x8B
EXIT_NESTED_FAULT = EXIT_BASE + 0x400
