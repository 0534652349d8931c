"""How do many samplers of one trained model score? Settings are tuned on one half of the samples
and scored on the other."""
