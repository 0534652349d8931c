def figure_samples(): pass
def figure_growth(): pass
def figure_fid(): pass
def figure_per_scale(): pass
def figure_code_usage(): pass
def figure_convergence(): pass
def figure_latency(): pass
