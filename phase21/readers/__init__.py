"""Those who watch the journal: judge, teach, write files, tell. None of them commands."""
