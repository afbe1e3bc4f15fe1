"""What goes on, for people and programs that watch: readers of the scheduler's tables, and subscribers of its events.

status.py   how things are, as plain data        survey.py   made from what the dispatcher's thread knows

Nothing here is imported by a run that nobody watches.
"""
