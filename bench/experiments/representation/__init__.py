"""Can a frozen generator improve an encoder whose z it is conditioned on? Contrast between its
reconstructions (DCR, arXiv 2603.04803), beside reconstruction alone, contrast alone and their
sum."""
