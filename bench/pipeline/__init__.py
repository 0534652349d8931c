"""The verbs that every study runs: images, tokenizer, models, samples, scores."""
