"""The search: Optuna behind one supervisor. Only this package, and what stands on it, imports Optuna."""
