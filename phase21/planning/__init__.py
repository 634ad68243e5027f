"""Which agent gets which task, and how likely it is to succeed. Values in, values out: no await, no disk, no clock."""
