"""What outlives the process: the journal, its encoding, the clock that stamps it, and files."""
