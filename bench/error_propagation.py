"""Verb: error_propagation."""
