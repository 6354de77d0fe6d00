"""The main job on show: lessons are booked, their mails arrive once, whatever crashes.

``scripts/demo`` makes an environment and runs ``python -m scripts.demonstration``.
"""
