"""What do samplers cost in time and memory, and how far are they from what the machine allows?"""
