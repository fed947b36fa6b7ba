"""emu: a virtual machine monitor in Python and a laboratory for virtual-machine memory management."""

__version__ = "0.1.0"
