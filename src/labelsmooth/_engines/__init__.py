"""How row statistics are found, on each kind of device: the formulas do not know which one did it."""
