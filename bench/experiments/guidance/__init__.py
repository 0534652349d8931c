"""What does classifier-free guidance (arXiv 2207.12598) give each variant, each at its best
scale and ramp?"""
