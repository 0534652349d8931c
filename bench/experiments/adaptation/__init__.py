"""Can a trained model that draws each scale once be adapted to draw it in several passes, in at
most half of its steps? What do these passes buy (SDAR, arXiv 2510.06303; a block is a scale here)?
"""
