"""What a plugin is, and how it is found.

A method (a teacher source, refiner, distiller, pruner, exporter or data set) is a class that an entry point names, and
its options are the fields of that class. `entry_points` lists the plugins from the metadata of the installed packages
and imports none of them, so that the command line starts quickly and one broken plugin does not stop it. `registry`
imports a method by name and makes it. `options`, `schedule`, `budget` and `search` are the kinds of values that options
have; `idle_options` refuses those that nothing reads. `own_code` calls functions of packages that are no plugins, and
`trust` knows which of them may be imported. `defaults` are the names of methods that the core's classes use as
defaults. `hookspecs` are the hooks of plugins that listen to every command.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
