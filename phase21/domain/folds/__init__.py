"""What each kind of event makes of what is known: one file a subject, one function a kind of event, and nothing else changes a record.

Only `ledger` calls them, by the tables `FOLDS`. Each is strict about order and lenient about repetition: an outcome that is already
recorded stays as it is. None reads a clock, a disk or a die.
"""
