"""Can a trained model that draws each scale once be adapted, in a tenth to a half of its steps,
into one that draws a scale in several passes (SDAR, arXiv 2510.06303; a block is a scale here), and
what do these passes buy?"""
