"""Benchmarks: one program, `python -m benchmarks`; see README.md beside this file."""
