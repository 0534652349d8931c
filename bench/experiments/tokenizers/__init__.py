"""What is a tokenizer worth: its reconstructions of held-out images in pixels and in features, and
the use of its codes (VQGAN, arXiv 2012.09841, section 3.1; VAR, arXiv 2404.02905, section 3.2)?"""
