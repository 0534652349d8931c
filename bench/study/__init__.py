"""The study: schema, variants, plan, names. Imports no torch."""
