"""From a recipe to a priced plan, a run, or a comparison of runs."""
