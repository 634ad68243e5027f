"""What a wave was worth: figures, anomalies, health, lessons. Values in, values out: no await, no disk, no clock."""
