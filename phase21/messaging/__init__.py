"""How parts that do not know each other hand over work and words: inboxes of agents, and the post between tasks.

`office` is the door to mail, shared values and locks. All that they hold is the ledger's, and changes by the journal alone.
"""
