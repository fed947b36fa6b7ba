"""What silicon would be: machine memory, the frame table, the AMD-V CPU, x86 paging formats."""
