"""One room a question: its plan, its verb, what it shows."""
