"""Words of the address spaces: page geometry and one type for each kind of page number and address.

VA is guest-virtual, PA guest-"physical" (the illusion of one VM), MA machine address (an offset into machine memory);
VPN, PPN and MPN are the page numbers of each (Waldspurger, OSDI 2002, section 2).
"""

from __future__ import annotations

from typing import NewType

VA = NewType("VA", int)
PA = NewType("PA", int)
MA = NewType("MA", int)
VPN = NewType("VPN", int)
PPN = NewType("PPN", int)
MPN = NewType("MPN", int)

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_BYTES - 1
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def vpn_of(va: VA) -> VPN:
    """The page that holds virtual address `va`."""
    return VPN(va >> PAGE_SHIFT)


def ppn_of(pa: PA) -> PPN:
    """The page that holds guest-physical address `pa`."""
    return PPN(pa >> PAGE_SHIFT)


def ma_of(mpn: MPN, offset: int = 0) -> MA:
    """The machine address of byte `offset` of frame `mpn`."""
    return MA((mpn << PAGE_SHIFT) | offset)


def pages_of(size_bytes: int) -> int:
    """The number of pages that `size_bytes` bytes fill, rounded up."""
    return (size_bytes + PAGE_MASK) >> PAGE_SHIFT
