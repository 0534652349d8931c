"""What is each idea of other Markovian next-scale models worth in one model, everything else equal?
Markov-VAR (arXiv 2511.23334), MVAR (2505.12742), HMAR (2506.04421), Infinity (2412.04431), SAR
(2512.06421), FlexVAR (2502.20313), SSG (2602.05534)."""
