"""From rows to figures, tables and captions. Imports no torch."""
