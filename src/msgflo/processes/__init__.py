"""What runs the processes of a network.

* :mod:`.library`: which components there are, and what starts one; its parts are
  :mod:`.configuration` (what files say of it), :mod:`.naming` (which names are safe),
  :mod:`.command` (from a template to the words of a process) and :mod:`.foreign` (definitions of
  participants that run somewhere else).
* :mod:`.supervisor`: a process per instance, kept running; its parts are :mod:`.restarts` (when to
  try again; pure), :mod:`.spawn` (one process, with all that it starts), :mod:`.output` (what
  processes print; pure but for writing it), and :mod:`.watchdog` with :mod:`.reaper`, so that
  nothing is left running however we end.

Nothing here speaks to a broker: whoever hears that a participant announced itself tells the
supervisor.
"""
