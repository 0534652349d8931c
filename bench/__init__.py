"""The verbs of the benchmark: files in, files out."""
