"""Who gets which frame: sharing, ballooning, swapping, and the policies that decide."""
