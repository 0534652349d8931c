"""What becomes of tokens of one scale that are wrong: does the sampler mend or spread them?"""
