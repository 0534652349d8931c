"""Verb: snr."""
