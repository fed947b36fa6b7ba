"""Many VMs on one machine."""
