"""Does reweighting the singular values of early scales buy diversity (DiverseVAR, arXiv 2511.17074)
that temperature and guidance do not buy as well?"""
