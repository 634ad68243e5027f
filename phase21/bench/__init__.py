"""The project's own benchmark: what phase21 costs, beside loops that do the least, measured in the same run."""
