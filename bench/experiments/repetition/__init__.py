"""Who uses repeated images better, a model that predicts scales or one that also fills masks
(diffusion against autoregression with few data, arXiv 2507.15857)?"""
