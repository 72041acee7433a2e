"""What a trained model's answers are worth: generation, metrics, ranking of options."""
