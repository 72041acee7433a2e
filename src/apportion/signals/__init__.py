"""What a model can tell about data: losses, and how much training on a task lowers the others' losses."""
