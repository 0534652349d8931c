"""srdd: visual autoregression by next-scale prediction, seen and sampled as a discrete diffusion
(arXiv 2509.22636)."""

__version__ = "0.2.0"
