"""Checkpoints: the results of a run in a file, so that the same script, started again, goes on where it was.

    format.py      the bytes of the file: header and records, each sealed with the user's key (pure)
    index.py       which results a file holds, in some thirty bytes each (pure)
    identity.py    which task is which, from run to run (pure)
    code.py        which modules of the user's a task comes from, and a digest of what they contain
    disk.py        the file itself: whose it is, reading, writing, whether it is still there
    lock.py        one master at a time
    digests.py     of large results, made beside their writing
    results_file.py   the file as a whole: opened, read, appended to, written anew
    store.py       what contexts write to: a queue, one thread, a sync once a second
    naming.py      what the tasks of one context are written under, and whether a result in the file is theirs
    writer.py      which outcomes of one context's tasks are to be written
    reader.py      these outcomes as readers get them: written by then, or out of the file if known
    recorder.py    the tasks of one context, or of one map: each is known or runs, by way of the last three

A task that is added goes through its context's recorder: if its result is in the file, an outcome that stands for it
goes into the mailbox at once, and is read when its turn comes; else the task goes its way.  What comes of it is put
into the store's queue by the dispatcher, which opens no file, and written by whoever is first: the store's thread, or
the reader that is about to give it to the user.
"""
