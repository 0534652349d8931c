"""Paired timings of our path and a plain one."""
