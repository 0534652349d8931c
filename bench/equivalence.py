"""Verb: equivalence."""
