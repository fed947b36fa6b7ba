"""Benchmarks: each measures what its name says, beside a peer measured in the same run."""
