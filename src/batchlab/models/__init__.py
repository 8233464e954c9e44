"""Small reference models, one idea per file. Each takes the sizes it needs and nothing else."""
