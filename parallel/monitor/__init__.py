"""What goes on, for people and programs that watch: readers of the scheduler's tables, and subscribers of its events.

status.py   how things are, as plain data        survey.py   made from what the dispatcher's thread knows
trace.py    a run as a file for trace viewers    chrome.py   its lines, made from the events
report.py   where the time of a traced run went  trace_reader.py, advice.py   the numbers, and what would have helped

Nothing here is imported by a run that nobody watches.
"""
