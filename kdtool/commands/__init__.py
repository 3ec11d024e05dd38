"""What each command of the tool does: one file for each file in `kdtool.cli.commands`, without the command line.

Each function takes paths or checkpoints and keyword options, and returns a checkpoint or plain data. `kdtool.api` makes
them public, so that a script does everything that the command line does. Three files are shared: `inputs` opens what a
command reads (a checkpoint, its data set, its teachers, a student), `outputs` does what is around every command that
writes a checkpoint (the file, the run and its history entry), and `history` makes the entry itself.
"""
