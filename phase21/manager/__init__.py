"""A wave carried out, from its plan to its judgement: `AgentManager` is the room's one public name."""

from phase21.manager.waves import AgentManager

__all__ = ["AgentManager"]
