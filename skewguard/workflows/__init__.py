"""Workflows: materialize, score, guard, explain. They compose rooms and hold no arithmetic."""
