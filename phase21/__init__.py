"""phase21: waves of predicted tasks over a fleet of agents, durable and learned from."""

__version__ = "0.1.0"
