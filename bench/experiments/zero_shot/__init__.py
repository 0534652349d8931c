"""Can a model complete images without training for it: in-painting, out-painting,
super-resolution (VAR, arXiv 2404.02905)?"""
