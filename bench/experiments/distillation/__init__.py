"""Can a model of fewer scales keep up with its teacher (SRDD, arXiv 2509.22636)?"""
