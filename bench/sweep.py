"""Verb: sweep."""
