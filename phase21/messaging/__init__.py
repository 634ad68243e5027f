"""How parts that do not know each other hand over work: inboxes."""
