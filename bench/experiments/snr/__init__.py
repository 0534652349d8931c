"""Do the scales of a tokenizer behave like the steps of a diffusion (DDPM, arXiv 2006.11239):
does each raise the signal-to-noise ratio?"""
