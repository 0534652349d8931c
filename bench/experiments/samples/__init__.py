"""What do the images look like, beside real ones of the same class, and how do they grow scale
by scale (VAR, arXiv 2404.02905)?"""
