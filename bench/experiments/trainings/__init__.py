"""What has each model learned at each scale, and does the tokenizer use its codes (VAR, arXiv
2404.02905)?"""
