"""What `scripts/soak` is made of: the ground on which a daemon is killed, and the stories that it is told there."""
