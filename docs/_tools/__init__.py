"""Turns pages into notebooks, runs them, and turns them into the site."""
