"""Do the variants generate better images? Scores of samples against held-out images (FID, arXiv
1706.08500; precision and recall, arXiv 1904.06991; density and coverage, arXiv 2002.09797;
CAS, arXiv 1905.10887)."""
