def table_scores(): pass
def table_tokenizer(): pass
def table_latency(): pass
