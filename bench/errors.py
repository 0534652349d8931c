"""The error of a user: one line that names file or key, value and remedy. Imports nothing of this project."""

from __future__ import annotations


class ConfigError(ValueError):
    """What is wrong with a study, in one line: file, key, value, remedy."""
