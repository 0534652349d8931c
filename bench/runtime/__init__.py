"""What every verb shares: command line, rows, processes, provenance."""
