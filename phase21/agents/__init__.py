"""Those who do the work: an actor each, its executor, and the fleet that keeps them at it."""
