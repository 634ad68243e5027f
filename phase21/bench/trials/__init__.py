"""What the learning is worth on real outcomes: one module for each part, measured by the code that serves."""
