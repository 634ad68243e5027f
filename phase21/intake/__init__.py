"""Where work comes in: the queue file, its lines, Phase 20 folders, and the configuration."""
