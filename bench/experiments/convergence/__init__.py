"""Which variant reaches a held-out loss, or an FID, in fewer steps (SRDD, arXiv 2509.22636)?"""
