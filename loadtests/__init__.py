"""Load tests of a deployment, for locust: docs/load-testing.md.

Each module without a leading underscore is a scenario or the shapes; locust loads it by its
path. What they share begins with an underscore.
"""
