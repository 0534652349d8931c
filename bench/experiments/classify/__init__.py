"""Under which class is an image likeliest, which scales tell, and what does it cost to ask
(likelihood classification, A-VARC, arXiv 2510.12060)?"""
