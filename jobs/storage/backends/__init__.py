"""Where OUT lies: a folder of this machine, or an object store; callers do not ask which."""
