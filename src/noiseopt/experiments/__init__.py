"""Experiments: a recipe (YAML) says what is trained and measured, a runner does what has not been done yet.

>>> from noiseopt.experiments.recipe import load
>>> from noiseopt.experiments.run import Runner
>>> outcome = Runner(load("my-recipe.yaml"), runs_dir="runs").run()
>>> outcome.folder, outcome.failures
"""
