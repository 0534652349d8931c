"""How well does a scale transformer restore degraded images that it is told
(RestoreVAR, arXiv 2505.18047), and what does its way of decoding decide?"""
