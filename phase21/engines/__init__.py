"""The hands: what carries one attempt out. An executor asks `engine.Engines` for the engine of a task's kind.

Engines know neither time limits nor retries nor the journal: they perform, say what came of it, and end when cancelled.
"""
