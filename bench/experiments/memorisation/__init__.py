"""Do samples copy training images? FID against the images that a training saw beside FID against
held-out ones. How often a sample is nearer to a training image than held-out images are (after the
three-sample test of data copying, arXiv 2004.05675)."""
