"""Is the training loss of a Markovian VAR a diffusion ELBO (SRDD, arXiv 2509.22636; D3PM, arXiv
2107.03006)?"""
