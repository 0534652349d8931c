"""Does a model that has learnt its classes still need guidance (CCA, arXiv 2410.09347)?"""
