"""What a PC board carries: pure Python, driven by port accesses and virtual time, never trusting the guest."""
