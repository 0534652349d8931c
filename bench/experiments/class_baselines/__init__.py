"""How well are held-out images classified without a model that generates: from pixels, from counts
of tokens, by the study's own classifier?"""
