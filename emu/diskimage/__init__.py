"""Disk images of the guest operating system: made, checked and read on the host (guests/os/FORMAT.md)."""
