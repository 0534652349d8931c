"""Verb: distill."""
