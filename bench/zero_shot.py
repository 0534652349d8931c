"""Verb: zero_shot."""
