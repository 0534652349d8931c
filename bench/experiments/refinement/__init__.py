"""Does drawing tokens again inside a scale help (SRDD, arXiv 2509.22636; MaskGIT, arXiv
2202.04200), and what does it cost?"""
