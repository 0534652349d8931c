"""How well are degraded images restored without a scale transformer, and which scales of a
tokenizer carry a degradation (the probe of RestoreVAR, arXiv 2505.18047)?"""
