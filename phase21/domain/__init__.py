"""The words of the house: values, facts and their fold. No await, no disk, no clock."""
