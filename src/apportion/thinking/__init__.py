"""How long a model thinks: tags, forcing at decoding, and rewards that know the budget."""
