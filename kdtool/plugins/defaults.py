"""The names of built-in methods that classes of the core use as defaults of their options.

The classes themselves name no method, so that every method can be replaced by a plugin. The default method of each
command (``--method``) stands with the command.
"""

RETRAINING_LOSS = "kd"
"""The distiller whose loss pruners retrain with, unless ``--objective`` names another one."""
