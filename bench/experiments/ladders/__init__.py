"""Which choice makes next-scale prediction good: a learned latent, a head of codes, or a partition
by scale (arXiv 2510.02826)? Each is one setting: `tokenizer.config.codec`, `model.head`, and
`patch_nums`, whose sides may repeat."""
