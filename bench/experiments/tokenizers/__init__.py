"""What are a tokenizer's reconstructions of held-out images worth, in pixels and in features? How
are its codes used (VQGAN, arXiv 2012.09841, section 3.1; VAR, arXiv 2404.02905, section 3.2)?"""
